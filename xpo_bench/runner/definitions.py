"""What records say of the metrics of plugins, so that they are printed and compared where the plugin is not
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpo_bench.contract.metric import Metric
from xpo_bench.metrics.registry import defined_in, learn
from xpo_bench.plugins import PluginInfo


def entry(metric: Metric, info: PluginInfo) -> dict[str, Any]:
    """What readers of a record need to know of a plugin's metric."""
    return {
        "unit": metric.unit,
        "better": metric.better,
        "definition": metric.doc,
        "plugin": info.name,
        "distribution": info.distribution,
        "version": info.version,
    }


def learn_from(record: Mapping[str, Any]) -> None:
    """Learn of the metrics that a record defines, to print and compare them."""
    learn(defined_in(record).values())
