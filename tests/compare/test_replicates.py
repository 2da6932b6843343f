"""What counts as a replicate: seeds that change nothing are one run, and zeros are no comparisons."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from comparisons import Records, record, run, said, shaken

from xpo_bench.compare.baselines import Baseline
from xpo_bench.compare.regressions import find_regressions
from xpo_bench.compare.verdicts import Verdict, judge_exact

NONE: Mapping[str, float] = MappingProxyType({})
METRICS = {"reward_accuracy": 0.9, "heldout_reward_accuracy": 0.7, "kl": 1.0}


def equal(changes: Mapping[str, float] = NONE, seeds: int = 5, task: str = "task0") -> Records:
    """Seeds that change nothing but the clock."""
    out = [record(task, seed, METRICS | dict(changes)) for seed in range(seeds)]
    for r in out:
        r["task"]["data"]["fingerprint"] = "the same"
        r["metrics"]["pairs_per_s"] = 100.0 + r["seed"]
    return out


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [
        ("reward_accuracy", 0.8, "regression"),
        ("reward_accuracy", 1.0, "improved"),
        ("reward_accuracy", 0.89, "equivalent"),
        ("kl", 1.2, "regression"),
        ("kl", 1.0 + 1e-9, "equivalent"),
        ("heldout_reward_accuracy", 0.65, "undecided"),
        ("heldout_reward_accuracy", 0.69, "equivalent"),
    ],
)
def test_equal_seeds_are_one_run_without_a_p(metric: str, value: float, verdict: str) -> None:
    found = said(equal(), equal({metric: value}))
    (row,) = found["cells"]
    assert (row["seeds"], row["runs"]) == (5, 1)
    (test,) = (test for test in found["tests"] if test["metric"] == metric)
    assert (test["verdict"], test["p"], test["n"], test["ci95"]) == (verdict, None, 1, None)
    assert found["comparisons"] == 0


def test_one_seed_is_no_proof_that_nothing_is_random() -> None:
    found = said(equal(seeds=1), equal({"reward_accuracy": 0.8}, 1))
    assert found["verdict"] == "undecided"
    assert {test["exact"] for test in found["tests"]} == {False}


def test_seeds_with_data_of_their_own_are_replicates_whatever_they_measure() -> None:
    base, new = equal(), equal({"reward_accuracy": 0.8})
    for r in (*base, *new):
        r["task"]["data"]["fingerprint"] = f"data-{r['seed']}"
    (row,) = said(base, new)["cells"]
    assert row["runs"] == 5


def test_a_seed_that_stands_twice_counts_once() -> None:
    base, new = run(3), shaken(run(3, shift={"kl": 0.2}), 0.01)
    once = said(base, new)
    for records in (base, new):
        copies = copy.deepcopy(records)
        for r in copies:
            r.update(seed=r["seed"] + 10)
        records += copies
    twice = said(base, new)
    assert (twice["cells"][0]["seeds"], twice["cells"][0]["runs"]) == (6, 3)
    assert [test["p"] for test in twice["tests"]] == [test["p"] for test in once["tests"]]


def test_differences_of_zero_are_in_no_family() -> None:
    new = run(shift={"kl": 0.2})
    for number, r in enumerate(new):
        r["metrics"]["kl"] += 0.01 * number
    found = said(run(), new)
    assert {test["metric"]: test["p"] is None for test in found["tests"]} == {
        "reward_accuracy": True,
        "gold_reward": True,
        "frontier_gap": True,
        "kl": False,
    }
    assert found["comparisons"] == 1
    (kl,) = (test for test in found["tests"] if test["metric"] == "kl")
    assert kl["p_holm"] == kl["p"]


def test_a_task_without_chance_has_one_value_in_the_test_over_tasks() -> None:
    base, new = run(tasks=3), shaken(run(tasks=3, shift={"gold_reward": -0.012}), 0.001)
    (found,) = said([*base, *equal(task="task3")], [*new, *equal({"reward_accuracy": 0.89}, task="task3")])[
        "algorithms"
    ]
    assert (found["tasks"], found["seeds"]) == (4, 5)
    assert found["p"] is not None
    # 0.6 of a margin at each of 15 runs, and one run with none: 16 values, and not 20
    assert found["mean"] == pytest.approx(0.6 * 15 / 16, abs=0.02)


def test_a_curve_of_one_run_is_judged_by_its_margin() -> None:
    def curves(records: Records, bump: float) -> dict[str, list[dict[str, float]]]:
        curve = [{"step": s, "kl": s / 40 + bump * (s in (10, 20))} for s in (0, 10, 20, 40)]
        return {r["key"]: curve for r in records}

    base, new = equal(), equal({"kl": 1.0 + 1e-9})
    sides: Any = [Baseline("b", base, curves(base, 0.0)), Baseline("n", new, curves(new, 3.0))]
    (row,) = find_regressions(*sides)["cells"]
    assert row["reasons"] == ["the curve of kl differs from step 10 on"]
    sides[1] = Baseline("n", new, curves(new, 1e-6))
    assert find_regressions(*sides)["verdict"] == "pass"


@pytest.mark.parametrize(
    ("metric", "moved", "better", "verdict"),
    [
        ("kl", -1.0, None, "regression"),
        ("frontier_gap", -1.0, "lower", "improved"),
        ("frontier_gap", 1.0, "lower", "regression"),
        ("win_rate", 1.0, "higher", "undecided"),
    ],
)
def test_exact_changes(metric: str, moved: float, better: str | None, verdict: Verdict) -> None:
    assert judge_exact(metric, moved, 0.1, better) == verdict
