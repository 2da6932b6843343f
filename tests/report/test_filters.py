"""What of a run is shown, and in which order: names that fit nothing are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reports import NOWHERE

from xpo_bench.errors import UsageError
from xpo_bench.report.content import Comparison, Report, assemble
from xpo_bench.report.filters import View

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def cells(record: Make) -> list[dict[str, Any]]:
    """Three algorithms on two tasks; ipo is best on bandit, and dpo has the largest KL."""
    return [
        record(a, task, s, attained_1=v + 0.001 * ((s * (i + 1)) % 3), kl=1.0 + v, gold_reward=v, regret=None)
        for i, (a, v) in enumerate((("dpo", 0.5), ("ipo", 0.9), ("kto", 0.7)))
        for task in ("bandit", "cycle")
        for s in range(3)
    ]


def shown(cells: list[dict[str, Any]], **view: Any) -> Report:
    return assemble(NOWHERE, cells, view=View(**view))


def rows(report: Report, task: str = "bandit") -> list[str]:
    return [g.label for g in report.groups if g.task == task]


def task_table(report: Report) -> Any:
    return next(t for t in report.tables if t.title.startswith("bandit: adam"))


def test_rows_stand_in_the_order_of_the_verdict(cells: list[dict[str, Any]]) -> None:
    report = shown(cells)
    assert rows(report) == ["ipo", "kto", "dpo"]
    assert list(task_table(report).columns[0].cells) == ["ipo", "kto", "dpo"]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["dpo", "ipo", "kto"]),
        ("gold_reward", ["ipo", "kto", "dpo"]),  # higher is better, and best comes first
        ("kl", ["dpo", "kto", "ipo"]),  # no side is better: the smallest first
    ],
)
def test_sort(cells: list[dict[str, Any]], sort: str, order: list[str]) -> None:
    report = shown(cells, sort=sort)
    assert rows(report) == order
    assert list(task_table(report).columns[0].cells) == order


def test_rows_without_the_number_stand_last(cells: list[dict[str, Any]], record: Make) -> None:
    more = [*cells, record("aa", "bandit", attained_1=0.1, kl=0.9)]
    assert rows(shown(more, sort="gold_reward")) == ["ipo", "kto", "dpo", "aa"]


def test_algorithms_and_tasks(cells: list[dict[str, Any]]) -> None:
    some = shown(cells, algos=("ipo", "k*"), tasks=("band*",))
    assert [(g.label, g.task) for g in some.groups] == [("ipo", "bandit"), ("kto", "bandit")]
    (verdict,) = some.verdicts
    assert verdict.family == 1  # who is not shown is not corrected for
    assert len(some.records) == len(cells)  # they are there all the same
    assert [row.label for row in some.against] == ["kto"]


def test_columns_in_the_order_that_was_asked_for(cells: list[dict[str, Any]]) -> None:
    table = task_table(shown(cells, columns=("gold_reward", "kl")))
    assert [c.name for c in table.columns] == ["", "lr", "runs", "gold_reward", "kl"]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"algos": ("dppo",)}, "--algos: unknown name in this run 'dppo'; did you mean 'dpo'?"),
        ({"tasks": ("bandit", "x*")}, "--tasks: unknown name in this run 'x*'"),
        ({"columns": ("gold_rewad",)}, "--columns: unknown metric of this run 'gold_rewad'; did you mean"),
        ({"sort": "kll"}, "--sort: unknown metric of this run 'kll'"),
        ({"columns": ("name",)}, "--columns: unknown metric of this run 'name'"),
    ],
)
def test_names_that_fit_nothing(cells: list[dict[str, Any]], view: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        shown(cells, **view)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_a_baseline_that_is_filtered_away_is_refused(cells: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="unknown algorithm of this run 'dpo'"):
        assemble(NOWHERE, cells, comparison=Comparison("dpo"), view=View(algos=("ipo", "kto")))


def test_why_there_is_nothing_to_compare(cells: list[dict[str, Any]], record: Make) -> None:
    still = [record("still", "bandit", s, attained_1=0.9, kl=1e-13, gold_reward=1.0) for s in range(3)]
    report = assemble(NOWHERE, [*cells, *still], comparison=Comparison("still"))
    assert report.sentences("against") == ["nothing to compare: still has not moved"]
    other = assemble(NOWHERE, cells, comparison=Comparison("dpo", "win_rate"))
    assert other.sentences("against") == [
        "nothing to compare: no other algorithm on a task of it has its metric"
    ]


@pytest.mark.parametrize("algos", [("dpo",), ()])
def test_a_metric_that_ranks_nobody_is_refused(cells: list[dict[str, Any]], algos: tuple[str, ...]) -> None:
    """Also of a single algorithm, which is compared with nobody."""
    for metric in ("kl", "no_such_metric"):
        with pytest.raises(UsageError, match=f"--metric {metric}: has no preferred direction, or is unknown"):
            assemble(NOWHERE, cells, comparison=Comparison(metric=metric), view=View(algos=algos))


def test_one_algorithm_alone(cells: list[dict[str, Any]]) -> None:
    report = shown(cells, algos=("dpo",))
    assert report.against == ()
    assert report.sections[0].name == "verdict"
    assert all(row.said == "" for v in report.verdicts for row in v.rows)
