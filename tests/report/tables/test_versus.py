"""Algorithms against one of them: paired, corrected, with a probability of improvement; ranked over tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from xpo_bench.errors import UsageError
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.summary import summarise
from xpo_bench.report.tables.versus import against, documents, rank_line, ranks, versus_table


def record(
    algorithm: str, task: str, seed: int, metrics: dict[str, float], beta: float = 0.1
) -> dict[str, Any]:
    return {
        "key": f"{algorithm}-{task}-{seed}-{beta}",
        "status": "ok",
        "seed": seed,
        "experiment": None,
        "algorithm": {"name": algorithm, "config": {"beta": beta}, "version": "1"},
        "task": {"name": task, "version": 1},
        "train": {},
        "metrics": metrics,
    }


def groups(
    means: dict[str, float], tasks: int = 2, seeds: int = 8, metric: str = "frontier_gap", noise: float = 0.01
) -> list[SeedGroup]:
    """Every algorithm at its mean; seeds have levels of their own that all algorithms share, far apart."""
    rng = np.random.default_rng(0)
    out = []
    for t in range(tasks):
        levels = rng.normal(0.0, 10.0, seeds)
        for name, mean in means.items():
            values = levels + mean + noise * rng.standard_normal(seeds)
            out += [record(name, f"t{t}", s, {metric: float(v)}) for s, v in enumerate(values)]
    return group(out)


def test_differences_are_paired_over_seeds() -> None:
    """Levels that differ by 10 between seeds hide a difference of 1, unless seeds are paired."""
    rows = against(groups({"dpo": 0.0, "ipo": -1.0}), "dpo")
    assert [(row.label, row.task, row.metric) for row in rows] == [
        ("ipo", "t0", "frontier_gap"),
        ("ipo", "t1", "frontier_gap"),
    ]
    for row in rows:
        assert row.difference.mean == pytest.approx(-1.0, abs=0.02)
        assert row.corrected is not None
        assert row.corrected < 1e-6


def test_p_is_that_of_scipy_and_corrected_for_all() -> None:
    found = groups({"dpo": 0.0, "ipo": 0.01, "kto": 0.0}, seeds=5, noise=0.02)
    rows = against(found, "dpo")
    by = {(g.label, g.task): [v for v in g.values("frontier_gap").values() if v is not None] for g in found}
    for row in rows:
        expected = scipy_stats.ttest_rel(by[row.label, row.task], by["dpo", row.task]).pvalue
        assert row.p == pytest.approx(expected)
    order = sorted(rows, key=lambda row: row.p or 0)
    assert order[0].corrected == pytest.approx(min(1.0, 4 * (order[0].p or 0)))


def test_family_wise_error_is_held() -> None:
    """Eight algorithms are the baseline by other names: one comparison in twenty may find a difference."""
    rng = np.random.default_rng(3)
    names = {f"a{i}": 0.0 for i in range(9)}
    alarms = 0
    for _ in range(150):
        rows = [
            record(n, "t", s, {"frontier_gap": float(rng.standard_normal())}) for n in names for s in range(5)
        ]
        alarms += any((row.corrected or 1.0) < 0.05 for row in against(group(rows), "a0"))
    assert alarms <= scipy_stats.binom.ppf(0.999, 150, 0.05)


@pytest.mark.parametrize(("metric", "expected"), [("frontier_gap", 1.0), ("reward_accuracy", 0.0)])
def test_improvement_knows_which_side_is_better(metric: str, expected: float) -> None:
    rows = [
        record(n, "t", s, {metric: v + s / 100}) for n, v in (("dpo", 0.5), ("ipo", 0.1)) for s in range(5)
    ]
    (row,) = against(group(rows), "dpo")
    assert row.improvement == expected


def test_a_single_seed_has_no_p() -> None:
    rows = [record(n, "t", 0, {"regret": v}) for n, v in (("dpo", 0.5), ("ipo", 0.1))]
    (row,) = against(group(rows), "dpo")
    assert (row.p, row.corrected, row.difference.half) == (None, None, None)
    assert documents([row])[0]["ci95"] is None


def test_seeds_that_only_one_has_are_left_out() -> None:
    rows = [record("dpo", "t", s, {"regret": 1.0 + s}) for s in (0, 1, 2)] + [
        record("ipo", "t", s, {"regret": s}) for s in (1, 2, 3)
    ]
    (row,) = against(group(rows), "dpo")
    assert (row.difference.n, row.difference.mean) == (2, -1.0)


def test_ranks_average_ties_and_leave_out_tasks_that_one_lacks() -> None:
    accuracies = {"t0": (0.9, 0.8, 0.8), "t1": (0.5, 0.9, 0.7)}
    found = [
        record(name, task, 0, {"reward_accuracy": value})
        for task, values in accuracies.items()
        for name, value in zip(("dpo", "ipo", "kto"), values, strict=True)
    ]
    found += [
        record("dpo", "t2", 0, {"reward_accuracy": 0.1}),
        record("ipo", "t2", 0, {"reward_accuracy": 0.9}),
    ]
    assert ranks(group(found)) == {"dpo": (2.0, 2), "ipo": (1.75, 2), "kto": (2.25, 2)}


def test_which_baseline_is_asked_for() -> None:
    rows = [
        record(n, "t", s, {"regret": 1.0 + s}, beta)
        for n in ("dpo", "ipo")
        for s in (0, 1)
        for beta in (0.1, 0.5)
    ]
    found = group(rows)
    with pytest.raises(
        UsageError,
        match=r"--baseline dpo: has 2 configurations here; name one: 'dpo beta=0.1', 'dpo beta=0.5'",
    ):
        against(found, "dpo")
    assert {row.label for row in against(found, "dpo beta=0.1")} == {
        "dpo beta=0.5",
        "ipo beta=0.1",
        "ipo beta=0.5",
    }
    with pytest.raises(UsageError, match="unknown algorithm of this run 'dppo'"):
        against(found, "dppo")
    with pytest.raises(UsageError, match="--metric kl: has no preferred direction"):
        against(found, "dpo beta=0.1", "kl")


def test_the_table_says_how_many_comparisons_were_made() -> None:
    found = groups({"dpo": 0.0, "ipo": 1.0, "kto": 2.0}, tasks=3)
    table = versus_table(against(found, "dpo"), "dpo")
    assert table.title == "Against dpo"
    assert "for 6 comparisons" in table.note
    assert rank_line(found) == ["Mean rank over 3 tasks, 1 is best: dpo 1, ipo 2, kto 3"]


def test_interquartile_means_from_twenty_seeds_on() -> None:
    for seeds in (19, 20):
        rows = [record("dpo", "t", s, {"regret": 1000.0 if s == 0 else float(s % 3)}) for s in range(seeds)]
        (row,) = summarise(rows)
        found = row["metrics"]["regret"]
        assert found["mean"] > 40
        assert ("iqm" in found) == (seeds == 20)
    assert 0.5 < found["iqm"] < 1.5
    assert found["iqm_ci95"][0] <= found["iqm"] <= found["iqm_ci95"][1]
