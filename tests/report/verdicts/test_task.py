"""The verdict on one task: who is best, worse, equivalent or undecided, and who is not compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reports import NOWHERE, store_items

from xpo_bench.report.content import assemble
from xpo_bench.report.items import item_reader, no_items
from xpo_bench.report.runs import group
from xpo_bench.report.verdicts.headline import headline, moved
from xpo_bench.report.verdicts.task import TaskVerdict, verdict_on

Make = Callable[..., dict[str, Any]]
SPREAD = (-0.004, 0.0, 0.004)


def cells(record: Make, means: dict[str, float], spread: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    """Three seeds of each algorithm around its mean, each in an order of its own."""
    more.setdefault("kl", 1.0)
    return [
        record(a, seed=s, attained_1=mean + spread * SPREAD[(s * (i + 1) + i) % 3], **more)
        for i, (a, mean) in enumerate(means.items())
        for s in range(3)
    ]


def judged(records: list[dict[str, Any]], metric: str | None = None) -> TaskVerdict:
    return verdict_on("bandit", group(records), no_items, metric)


def said(verdict: TaskVerdict) -> dict[str, str]:
    return {row.group.label: row.said for row in verdict.rows}


def test_planted_means_get_their_words(record: Make) -> None:
    """ipo is 0.001 behind dpo, and no seed says more; kto's seeds scatter; orpo is far behind."""
    planted = cells(record, {"dpo": 0.95, "orpo": 0.2}) + [
        record("ipo", seed=s, attained_1=0.949 - SPREAD[s], kl=1.0) for s in range(3)
    ]
    planted += [record("kto", seed=s, attained_1=v, kl=1.0) for s, v in enumerate((0.7, 0.98, 0.95))]
    verdict = judged(planted)
    assert said(verdict) == {"dpo": "best", "ipo": "best", "kto": "?", "orpo": "worse"}
    ranks = {row.group.label: row.ranks for row in verdict.rows}
    assert ranks == {"dpo": (1, 3), "ipo": (1, 3), "kto": (1, 4), "orpo": (3, 4)}
    assert [row.group.label for row in verdict.best] == ["dpo", "ipo", "kto"]
    behind = {row.group.label: row for row in verdict.rows}
    assert behind["dpo"].behind is None
    orpo, kto = behind["orpo"].behind, behind["kto"].verdict
    assert orpo is not None
    assert orpo.mean == pytest.approx(-0.75)
    assert kto is not None
    assert kto.word == "cannot tell"
    assert kto.runs is not None  # so many seeds would tell
    assert kto.runs > 3


def test_equivalent_is_best_even_where_it_is_significantly_behind(record: Make) -> None:
    """0.01 of what the frontier offers, in every seed: nobody needs to choose by it."""
    close = [
        record(a, seed=s, attained_1=m + 0.1 * s + (1e-4 * s if a == "ipo" else 0.0), kl=1.0)
        for a, m in (("dpo", 0.5), ("ipo", 0.49))
        for s in range(3)
    ]
    verdict = judged(close)
    assert said(verdict) == {"dpo": "best", "ipo": "best"}
    (row,) = verdict.rows[1:]
    assert row.verdict is not None
    assert (row.verdict.word, row.ranks) == ("equivalent", (2, 2))
    assert row.verdict.corrected is not None
    assert row.verdict.corrected < 0.05


@pytest.mark.parametrize(("kl", "budget"), [(2.5e-14, None), (2.5e-14, 2.7), (0.003, 2.7)])
def test_a_policy_that_has_not_moved_has_no_rank(record: Make, kl: float, budget: float | None) -> None:
    notes = {"budget_kl": budget} if budget else {}
    planted = cells(record, {"still": 0.99}, kl=kl, notes=notes)
    planted += cells(record, {"dpo": 0.9, "ipo": 0.5}, notes=notes)
    verdict = judged(planted)
    assert said(verdict) == {"dpo": "best", "ipo": "worse", "still": "not moved"}
    still = verdict.row("still")
    assert still is not None
    assert (still.ranks, still.behind, still.verdict) == (None, None, None)
    assert [row.group.label for row in verdict.ranked] == ["dpo", "ipo"]
    assert {row.ranks for row in verdict.ranked} == {(1, 1), (2, 2)}


def test_what_counts_as_moved_is_in_units_of_the_task(record: Make) -> None:
    """A hundredth of the KL of the task's own optimum, of 1 nat where that is not known."""
    (large,) = group([record(kl=0.02, notes={"budget_kl": 2.7})])
    (small,) = group([record(kl=0.02, notes={"budget_kl": 0.5})])
    (unknown,) = group([record(kl=0.02)])
    (never_measured,) = group([record(attained_1=0.5)])
    assert [moved(g) for g in (large, small, unknown, never_measured)] == [False, True, True, True]
    (some,) = group([record(seed=s, kl=kl) for s, kl in enumerate((1e-9, 0.5))])
    assert moved(some)


def test_a_run_that_is_not_ok_keeps_its_row_out(record: Make) -> None:
    lost = cells(record, {"kto": 0.99}, status="diverged")
    failed = [record("npo", seed=s, status="failed", error="no") for s in range(3)]
    verdict = judged(cells(record, {"dpo": 0.9, "ipo": 0.5}) + lost + failed)
    assert [row.group.label for row in verdict.ranked] == ["dpo", "ipo"]
    assert said(verdict) == {"dpo": "best", "ipo": "worse", "kto": "", "npo": ""}


def test_equal_seeds_are_one_run_and_the_difference_exact(record: Make) -> None:
    """Where nothing is random only the margin decides."""
    planted = [
        record(a, seed=s, attained_1=v, kl=1.0, pairs_per_s=100.0 * s)  # a clock tells no runs apart
        for a, v in (("dpo", 0.9), ("ipo", 0.895), ("kto", 0.8))
        for s in range(3)
    ]
    verdict = judged(planted)
    assert said(verdict) == {"dpo": "best", "ipo": "best", "kto": "worse"}
    assert {row.behind.runs for row in verdict.ranked if row.behind} == {1}


def test_a_single_seed_gets_no_verdict_and_is_told_why(record: Make) -> None:
    verdict = judged([record(a, attained_1=v, kl=1.0) for a, v in (("ipo", 0.5), ("dpo", 0.9))])
    assert verdict.reason == "a single seed has no interval; --seeds 3 gives one"
    assert [row.group.label for row in verdict.rows] == ["dpo", "ipo"]  # in their order all the same
    assert said(verdict) == {"dpo": "", "ipo": ""}
    assert verdict.ranked == verdict.best == []


def test_why_there_is_no_interval_in_spite_of_several_seeds(record: Make) -> None:
    """Equal seeds on held-out pairs whose number nobody knows; and seeds of which one is common."""
    values = (("dpo", 0.9), ("ipo", 0.5))
    old = [record(a, seed=s, heldout_accuracy_at_1=v, kl=1.0) for a, v in values for s in range(3)]
    assert judged(old).reason == "the records do not say how many pairs were held out"
    apart = [
        record(a, seed=s + 2 * i, attained_1=v - 0.1 * s, kl=1.0)
        for i, (a, v) in enumerate(values)
        for s in range(3)
    ]
    assert judged(apart).reason == "no two algorithms have several seeds in common"


def test_a_single_algorithm_has_its_number_and_nothing_to_be_compared_with(record: Make) -> None:
    verdict = judged(cells(record, {"dpo": 0.9}))
    (row,) = verdict.rows
    assert row.mean is not None
    assert row.mean.mean == pytest.approx(0.9)
    assert (row.said, row.ranks, verdict.reason) == ("", None, "")


def test_no_seed_in_common(record: Make) -> None:
    planted = [record(a, seed=s, attained_1=0.5 + 0.1 * s, kl=1.0) for s, a in enumerate(("dpo", "ipo"))]
    verdict = judged(planted)
    assert said(verdict) == {"dpo": "", "ipo": ""}
    assert verdict.reason == "no two algorithms have a seed in common"


def test_more_rows_than_are_compared_with_all(record: Make) -> None:
    verdict = judged(cells(record, {f"a{i}": 0.9 - 0.01 * i for i in range(41)}))
    assert verdict.reason == "41 rows are too many to compare all with all; name some by --algos"
    assert verdict.rows[0].group.label == "a0"
    assert set(said(verdict).values()) == {""}


def test_a_lower_metric_turns_the_order(record: Make) -> None:
    planted = [
        record(a, seed=s, regret=v + SPREAD[(s * (i + 1)) % 3], kl=1.0)
        for i, (a, v) in enumerate((("dpo", 0.9), ("ipo", 0.1)))
        for s in range(3)
    ]
    assert said(judged(planted, "regret")) == {"ipo": "best", "dpo": "worse"}


def test_certain_preferences_are_judged_by_whether_they_stop(record: Make) -> None:
    states = {
        "sat": "saturated",
        "col": "collapsed",
        "con": "converged",
        "fall": "falling",
        "rise": "rising",
        "new": "unheard-of",
    }
    planted = [
        record(a, seed=s, notes={"rejected_state": state}, kl=1.0, reward_accuracy=1.0)
        for a, state in states.items()
        for s in range(3)
    ]
    planted += [record("short", notes={"rejected_state_reason": "a run of 5 steps"}, kl=1.0)]
    verdict = judged(planted)
    assert verdict.headline.metric is None
    assert [(row.group.label, row.state) for row in verdict.rows] == [
        ("con", "stops"),
        ("fall", "keeps falling"),
        ("rise", "keeps rising"),
        ("col", "collapses"),
        ("sat", "saturates"),
        ("new", "unheard-of"),
        ("short", None),
    ]
    assert verdict.ranked == []


def test_seeds_that_disagree_on_whether_it_stops(record: Make) -> None:
    states = ["converged", "falling", "converged"]
    planted = [record(seed=s, notes={"rejected_state": state}) for s, state in enumerate(states)]
    planted += [record("ipo", seed=s, notes={"rejected_state": "falling"}) for s in range(3)]
    planted += [record("kto", seed=s, notes={"rejected_state": "converged"}) for s in range(3)]
    verdict = judged(planted)
    assert [(r.group.label, r.state) for r in verdict.rows] == [
        ("kto", "stops"),
        ("dpo", "stops 2/3"),
        ("ipo", "keeps falling"),
    ]


def test_the_headline_is_the_first_that_all_algorithms_have(record: Make) -> None:
    def chosen(*rows: dict[str, float]) -> str | None:
        return headline(group(record(f"a{i}", **row) for i, row in enumerate(rows))).metric

    exact = {"attained_1": 0.5, "heldout_accuracy_at_1": 0.7, "heldout_reward_accuracy": 0.7}
    held = {"heldout_accuracy_at_1": 0.7, "heldout_reward_accuracy": 0.7}
    gold = {"win_rate_at_1": 0.6, **held}
    old = {"heldout_reward_accuracy": 0.7}
    assert chosen(exact, exact) == "attained_1"
    assert chosen(exact, held) == "heldout_accuracy_at_1"
    assert chosen(gold, gold) == "win_rate_at_1"
    assert chosen(exact, old) == "heldout_reward_accuracy"
    assert chosen(exact, {"kl": 1.0}) is None
    failed = [record("dpo", **exact), record("ipo", status="failed", error="no")]
    assert headline(group(failed)).metric == "attained_1"  # a failed run takes no headline away


def heldout(record: Make, root: Path, people: int, seeds: int = 3) -> TaskVerdict:
    """Equal seeds of which dpo ranks 9 in 10 held-out people right, and ipo 6 in 10."""
    planted = [
        record(a, "travel", s, kl=1.0, heldout_accuracy_at_1=v)
        for a, v in (("dpo", 0.9), ("ipo", 0.6))
        for s in range(seeds)
    ]
    for cell in planted:
        right = 9 if cell["algorithm"]["name"] == "dpo" else 6
        outcomes = [float(7 * i % 10 < right) for i in range(people)]
        store_items(root, cell["key"], [0.0] * people, at_1=outcomes)
    return verdict_on("travel", group(planted), item_reader(root))


def test_held_out_numbers_are_as_sure_as_their_items(record: Make, tmp_path: Path) -> None:
    few, many = (heldout(record, tmp_path / str(n), n) for n in (5, 500))
    assert said(few) == {"dpo": "best", "ipo": "?"}
    assert said(many) == {"dpo": "best", "ipo": "worse"}
    (row,) = few.rows[1:]
    assert row.behind is not None
    assert (row.behind.runs, row.behind.items) == (1, 5)  # three names of one run
    assert row.verdict is not None
    assert row.verdict.items is not None  # so many people would tell
    assert row.verdict.items > 5


def test_marks_of_the_headline_are_those_of_the_verdict(record: Make) -> None:
    """Of a best set of two among four: both are marked, and in no other order of tests."""
    planted = cells(record, {"dpo": 0.95, "ipo": 0.949, "kto": 0.5, "orpo": 0.2})
    report = assemble(NOWHERE, planted)
    (verdict,) = report.verdicts
    assert said(verdict) == {"dpo": "best", "ipo": "best", "kto": "worse", "orpo": "worse"}
    (table,) = (t for t in report.tables if t.title.startswith("bandit: adam"))
    (column,) = (c for c in table.columns if c.header == "attained_1")
    marks = dict(zip(table.columns[0].cells, column.best, strict=True))
    assert marks == {"dpo": True, "ipo": True, "kto": False, "orpo": False}


def test_nothing_is_marked_where_most_are_best(record: Make) -> None:
    verdict = judged(cells(record, {"dpo": 0.95, "ipo": 0.949, "orpo": 0.2}))
    assert said(verdict)["ipo"] == "best"
    assert verdict.marked([row.group for row in verdict.rows]) == [False] * 3
