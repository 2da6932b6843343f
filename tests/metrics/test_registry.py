"""The registry: names, units, definitions, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from xpo_bench.contract.metric import Definition, metric
from xpo_bench.metrics.registry import METRICS, better, defined_in, describe, find, learn, take

CONTRACT = {
    "chosen_logp",
    "rejected_logp",
    "chosen_prob",
    "rejected_prob",
    "rejected_drift",
    "collapsed",
    "collapse_step",
    "collapse_slope",
    "converged",
    "saturated",
    "determinism",
    "control",
    "displacement",
    "displaced_fraction",
    "kl",
    "kl_forward",
    "kl_se",
    "entropy",
    "gold_reward",
    "frontier_gap",
    "acceptance_rate",
    "regret",
    "reward_accuracy",
    "ranking_accuracy",
    "ranking_accuracy_avg",
    "accuracy_lc",
    "generalization_gap",
    "calibration_error",
    "brier",
    "pairs_per_s",
    "tokens_per_s",
    "prepare_s",
    "overhead",
    "total_flops",
    "peak_memory_mb",
}
UNITS = {"nats", "tokens", "–", "share", "step", "reward", "1/s", "s", "ratio", "FLOP", "MB"}


def test_the_contract_s_names_are_all_there() -> None:
    assert {row["name"] for row in describe()} >= CONTRACT


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_defined(name: str) -> None:
    found = METRICS[name]
    assert found.unit in UNITS
    assert found.better in ("higher", "lower", None)
    assert len(found.doc) > 60
    if found.kind in ("point", "curve", "run"):
        assert "Source:" in found.doc


def test_heldout_is_the_same_metric() -> None:
    assert find("heldout_reward_accuracy") is METRICS["reward_accuracy"]
    assert find("below_threshold") is None
    assert find("nonsense") is None


def test_a_metric_needs_a_docstring() -> None:
    with pytest.raises(TypeError, match="docstring"):
        metric("nats", name="undocumented")(lambda ev: np.zeros(1))


def test_two_metrics_of_one_name_are_refused() -> None:
    module = ModuleType("elsewhere")

    @metric("nats")
    def kl(ev: object) -> None:
        """Another."""

    kl.__module__ = "elsewhere"
    vars(module)["kl"] = kl
    with pytest.raises(TypeError, match="taken"):
        take([module])
    assert METRICS["kl"].function is not kl


def test_what_is_learned_changes_nothing_of_the_suite_s_own() -> None:
    learn(
        [
            Definition("kl", "miles", "higher", "Another."),
            Definition("learned_here", "miles", "higher", "Another."),
        ]
    )
    assert find("kl") is METRICS["kl"]
    learned = find("heldout_learned_here")
    assert learned is not None
    assert (learned.unit, learned.better) == ("miles", "higher")
    assert "learned_here" not in {row["name"] for row in describe()}


def test_definitions_of_records_travel_as_a_value() -> None:
    entry = {"unit": "miles", "better": "higher", "definition": "Another."}
    record = {"metric_definitions": {"carried": entry, "kl": entry, "odd": {"better": "sideways"}, "none": 3}}
    found = defined_in(record)
    assert found.keys() == {"carried", "kl"}
    assert find("heldout_carried", found) == Definition("carried", "miles", "higher", "Another.")
    assert better("carried", found) == "higher"
    assert find("kl", found) is METRICS["kl"]
    assert find("carried") is None  # reading changes nothing
    assert find("carried", {}) is None
    assert defined_in({}) == defined_in({"metric_definitions": None}) == {}


def test_no_torch() -> None:
    code = "import sys, xpo_bench.metrics; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
