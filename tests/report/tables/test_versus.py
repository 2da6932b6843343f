"""Algorithms against one of them: paired, corrected, with a word each and a probability of improvement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from xpo_bench.errors import UsageError
from xpo_bench.report.items import no_items
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.summary import summarise
from xpo_bench.report.tables.versus import Against, against, default_baseline, documents, versus_table


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
    means: dict[str, float], tasks: int = 2, seeds: int = 8, metric: str = "attained_1", noise: float = 0.01
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


def compared(found: list[SeedGroup], baseline: str = "dpo", metric: str | None = None) -> list[Against]:
    return against(found, baseline, no_items, metric)


def test_differences_are_paired_over_seeds() -> None:
    """Levels that differ by 10 between seeds hide a difference of 1, unless seeds are paired."""
    rows = compared(groups({"dpo": 0.0, "ipo": -1.0}))
    assert [(row.label, row.task, row.metric) for row in rows] == [
        ("ipo", "t0", "attained_1"),
        ("ipo", "t1", "attained_1"),
    ]
    for row in rows:
        assert row.difference.mean == pytest.approx(-1.0, abs=0.02)
        assert row.verdict.word == "worse"
        assert row.verdict.corrected is not None
        assert row.verdict.corrected < 1e-6


def test_p_is_that_of_scipy_and_corrected_for_all() -> None:
    found = groups({"dpo": 0.0, "ipo": 0.01, "kto": 0.0}, seeds=5, noise=0.02)
    rows = compared(found)
    by = {(g.label, g.task): [v for v in g.values("attained_1").values() if v is not None] for g in found}
    p_values = {}
    for row in rows:
        expected = scipy_stats.ttest_rel(by[row.label, row.task], by["dpo", row.task]).pvalue
        assert row.difference.p == pytest.approx(expected)
        p_values[expected] = row.verdict.corrected
    assert len(p_values) == 4
    smallest = min(p_values)
    assert p_values[smallest] == pytest.approx(min(1.0, 4 * smallest))


def test_family_wise_error_is_held() -> None:
    """Eight algorithms are the baseline by other names: one comparison in twenty may find a difference."""
    rng = np.random.default_rng(3)
    names = {f"a{i}": 0.0 for i in range(9)}
    alarms = 0
    for _ in range(150):
        rows = [
            record(n, "t", s, {"attained_1": float(rng.standard_normal())}) for n in names for s in range(5)
        ]
        words = {row.verdict.word for row in compared(group(rows), "a0")}
        assert words <= {"better", "worse", "cannot tell"}  # seeds that scatter by 1 show no equality
        alarms += bool(words & {"better", "worse"})
    assert alarms <= scipy_stats.binom.ppf(0.999, 150, 0.05)


def test_differences_that_are_0_by_construction_are_in_no_family() -> None:
    """Of nine algorithms seven are dpo itself: the other one is corrected for one comparison."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, 5)
    same = [record(f"a{i}", "t", s, {"attained_1": float(v)}) for i in range(8) for s, v in enumerate(values)]
    lower = [
        record("ipo", "t", s, {"attained_1": float(v - 0.1 - 0.02 * rng.standard_normal())})
        for s, v in enumerate(values)
    ]
    rows = {row.label: row for row in compared(group(same + lower), "a0")}
    assert rows["ipo"].verdict.word == "worse"
    assert rows["ipo"].verdict.corrected == rows["ipo"].difference.p
    equal = [row for label, row in rows.items() if label != "ipo"]
    assert {(row.verdict.word, row.verdict.corrected) for row in equal} == {("equivalent", None)}
    assert "for 1 comparison." in versus_table(list(rows.values()), "a0").note


def test_equivalent_is_shown_and_never_inferred() -> None:
    """Within two hundredths by two one-sided tests; a wide interval around 0 is no equality."""
    (close,) = compared(groups({"dpo": 0.5, "ipo": 0.505}, tasks=1, noise=0.002))
    scattered = [
        record(n, "t", s, {"attained_1": 0.5 + s + sign * 0.06 * (-1) ** s + (0.05 if sign else 0.0)})
        for n, sign in (("dpo", 0), ("ipo", 1))
        for s in range(4)
    ]
    (wide,) = compared(group(scattered))
    assert close.margin == 0.02
    assert (close.verdict.word, wide.verdict.word) == ("equivalent", "cannot tell")
    needed = wide.verdict.runs
    assert needed is not None
    assert needed > 4
    assert f"{needed} seeds" in versus_table([wide], "dpo").columns[7].cells


@pytest.mark.parametrize(("metric", "expected"), [("frontier_gap", 1.0), ("reward_accuracy", 0.0)])
def test_improvement_knows_which_side_is_better(metric: str, expected: float) -> None:
    rows = [
        record(n, "t", s, {metric: v + s / 100}) for n, v in (("dpo", 0.5), ("ipo", 0.1)) for s in range(5)
    ]
    (row,) = compared(group(rows), metric=metric)
    assert row.improvement == expected
    assert row.verdict.word == ("better" if expected else "worse")


def test_a_single_seed_has_no_p() -> None:
    rows = [record(n, "t", 0, {"regret": v}) for n, v in (("dpo", 0.5), ("ipo", 0.1))]
    (row,) = compared(group(rows), metric="regret")
    assert (row.difference.p, row.verdict.corrected, row.difference.half) == (None, None, None)
    assert row.verdict.word == "cannot tell"
    assert documents([row])[0]["ci95"] is None


def test_seeds_that_are_equal_are_one_run() -> None:
    """Three names of one run: what differs is exact, and no t-test of three equal numbers."""
    rows = [record(n, "t", s, {"regret": v}) for n, v in (("dpo", 0.5), ("ipo", 0.1)) for s in range(3)]
    (row,) = compared(group(rows), metric="regret")
    assert (row.difference.runs, row.difference.fixed) == (1, True)
    assert row.verdict.word == "better"
    assert documents([row])[0]["n"] == 1


def test_seeds_that_only_one_has_are_left_out() -> None:
    rows = [record("dpo", "t", s, {"regret": 1.0 + s}) for s in (0, 1, 2)] + [
        record("ipo", "t", s, {"regret": s}) for s in (1, 2, 3)
    ]
    (row,) = compared(group(rows), metric="regret")
    assert (row.difference.runs, row.difference.mean) == (2, -1.0)


def test_who_has_not_moved_is_compared_with_nobody() -> None:
    rows = [
        record(n, "t", s, {"attained_1": v + s / 100, "kl": kl})
        for n, v, kl in (("dpo", 0.5, 1.0), ("ipo", 0.4, 0.9), ("still", 0.6, 2.5e-14))
        for s in range(3)
    ]
    assert {row.label for row in compared(group(rows))} == {"ipo"}
    assert compared(group(rows), "still") == []


def test_the_baseline_where_none_is_named() -> None:
    rows = [record(n, "t", 0, {"regret": 1.0}) for n in ("cpo", "dpo", "ipo")]
    assert default_baseline(group(rows)) == "dpo"
    assert default_baseline(group(r for r in rows if r["algorithm"]["name"] != "dpo")) == "cpo"
    assert default_baseline(group(rows[:1])) is None
    assert default_baseline([]) is None


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
        compared(found, "dpo")
    assert {row.label for row in compared(found, "dpo beta=0.1", "regret")} == {
        "dpo beta=0.5",
        "ipo beta=0.1",
        "ipo beta=0.5",
    }
    with pytest.raises(UsageError, match="unknown algorithm of this run 'dppo'"):
        compared(found, "dppo")
    with pytest.raises(UsageError, match="--metric kl: has no preferred direction"):
        compared(found, "dpo beta=0.1", "kl")


def test_the_table_says_how_many_comparisons_were_made() -> None:
    found = groups({"dpo": 0.0, "ipo": 1.0, "kto": 2.0}, tasks=3)
    table = versus_table(compared(found), "dpo")
    assert table.title == "Against dpo"
    assert "for 6 comparisons" in table.note
    assert "(attained_1 0.02)" in table.note


def test_interquartile_means_from_twenty_seeds_on() -> None:
    for seeds in (19, 20):
        rows = [record("dpo", "t", s, {"regret": 1000.0 if s == 0 else float(s % 3)}) for s in range(seeds)]
        (row,) = summarise(rows)
        found = row["metrics"]["regret"]
        assert found["mean"] > 40
        assert ("iqm" in found) == (seeds == 20)
    assert 0.5 < found["iqm"] < 1.5
    assert found["iqm_ci95"][0] <= found["iqm"] <= found["iqm_ci95"][1]
