"""overfit_rates: the pair of `overfit_pair` where learning rates are tried out until IPO diverges.

A network's gradient is far longer than a tabular policy's, so the rate at which IPO stops converging is
small: plain gradient descent settles at 1e-4 and 1e-3, overshoots its target by far at 1e-2, and diverges as
the rate grows further. That divergence is a finding here, while on `overfit_pair` it would be a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.tasks.overfit_pair import OverfitPair


@dataclass(frozen=True)
class OverfitRates(OverfitPair):
    """The single pair, with divergence of IPO expected."""

    name: ClassVar[str] = "overfit_rates"
    expects_divergence: ClassVar[frozenset[str]] = frozenset({"ipo"})


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [OverfitRates]
