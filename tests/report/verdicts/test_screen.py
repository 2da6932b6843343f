"""The first screen: what a newcomer reads before anything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from reports import print_run, store_items

from xpo_bench.report.items import item_reader, no_items
from xpo_bench.report.runs import group
from xpo_bench.report.verdicts.screen import Screen, fraction
from xpo_bench.report.verdicts.task import verdict_on

Make = Callable[..., dict[str, Any]]
Printed = Callable[..., str]
SPREAD = (-0.004, 0.0, 0.004)


def exact(
    record: Make,
    task: str = "bandit",
    seeds: int = 3,
    also: Mapping[str, float] | None = None,
    **means: float,
) -> list[dict[str, Any]]:
    """Runs on a world with a known reward; the seeds of each algorithm scatter in an order of their own."""
    return [
        record(a, task, s, attained_1=mean + SPREAD[(s * (i + 1) + i) % 3], kl=1.0)
        for i, (a, mean) in enumerate({**means, **(also or {})}.items())
        for s in range(seeds)
    ]


def certain(record: Make, task: str = "deterministic", **states: str) -> list[dict[str, Any]]:
    """Runs on preferences that nobody contradicts."""
    return [
        record(a, task, s, notes={"rejected_state": state}, kl=1.0, rejected_logp=-5.0)
        for a, state in states.items()
        for s in range(3)
    ]


def screen(records: list[dict[str, Any]], root: Path | None = None) -> Screen:
    by_task: dict[str, Any] = {}
    for g in group(records):
        by_task.setdefault(g.task, []).append(g)
    items = item_reader(root) if root else no_items
    return Screen([verdict_on(task, groups, items) for task, groups in by_task.items()])


def opening(text: str) -> str:
    """What stands above the first table of a task, on one line."""
    return " ".join(text.split(": adam")[0].split())


def test_the_answer_opens_what_is_printed(record: Make, printed: Printed) -> None:
    cells = exact(record, dpo=0.95, ipo=0.5) + certain(record, dpo="collapsed", ipo="converged")
    lines = printed(print_run, cells, width=100).splitlines()
    assert lines[0].strip() == "Which algorithm? 2 tasks, 3 seeds, within 1 nat of KL"
    words = [" ".join(line.split()) for line in lines[1:5]]
    assert words[0] == "task data dpo ipo unit"
    assert words[2] == "bandit known reward .95 best .50 worse of the exact frontier"
    assert words[3] == "deterministic training pairs collapses stops does it stop?"
    said = opening("\n".join(lines))
    assert "- bandit (known reward): best is dpo (0.95" in said
    assert "worse: ipo (-0.45" in said
    assert "- deterministic (training pairs): what was rejected stops under ipo; collapses under dpo." in said
    assert "margins of equivalence: attained_1 0.02" in said


def test_words_are_explained_where_they_are_used(record: Make) -> None:
    both = screen(exact(record, dpo=0.95, ipo=0.5)).table().note
    assert "worse: than the best" in both
    assert "?:" not in both
    level = [record(a, seed=s, attained_1=0.5 + 0.1 * ((s * i) % 3), kl=1.0)
             for i, a in enumerate(("dpo", "ipo"), 1) for s in range(3)]  # fmt: skip
    unclear = screen(level).table().note
    assert "?: cannot be told from the best" in unclear
    assert "worse" not in unclear
    alone = screen(exact(record, dpo=0.95)).table().note
    assert "best" not in alone


def test_a_policy_that_has_not_moved_is_told_by_its_kl(record: Make, printed: Printed) -> None:
    """It has the lowest gap and every accuracy that the signs of rounding give, and wins nothing."""
    still = [
        record("dpo", seed=s, kl=2.5e-14, attained_1=1e-9 * (s + 1), frontier_gap=0.0, reward_accuracy=0.99)
        for s in range(3)
    ]
    moved = [
        record("ipo", seed=s, kl=1.0, attained_1=0.9 + SPREAD[s], frontier_gap=0.1, reward_accuracy=0.9)
        for s in range(3)
    ]
    moved += [
        record("kto", seed=s, kl=1.0, attained_1=0.5 + SPREAD[s], frontier_gap=0.2, reward_accuracy=0.8)
        for s in range(3)
    ]
    text = printed(print_run, still + moved, width=120)
    said = opening(text)
    assert "bandit: dpo has not moved (KL 2.5e-14 nats), and has no rank." in said
    assert ".00 not moved" in said
    assert "best is ipo" in said
    rows = [line for line in text.split("bandit: adam")[1].splitlines() if line.startswith("dpo")]
    assert rows
    assert not any("*" in row for row in rows)
    assert "0.1*" in text  # the lowest gap of those that moved


def test_several_that_have_not_moved_are_told_together(record: Make) -> None:
    cells = exact(record, ipo=0.9, kto=0.5)
    cells += [
        record(a, seed=s, kl=kl, attained_1=0.99, notes={"budget_kl": 2.7})
        for a, kl in (("dpo", 2.5e-14), ("online_dpo", 0.003))
        for s in range(3)
    ]
    said = screen(cells).sentences()
    assert "bandit: dpo and online_dpo have not moved (KL 0.003 nats at most), and have no rank." in said


def test_nobody_moved(record: Make, printed: Printed) -> None:
    cells = [record(a, seed=s, kl=1e-14, attained_1=1e-9) for a in ("dpo", "ipo") for s in range(3)]
    said = opening(printed(print_run, cells))
    assert "dpo and ipo have not moved" in said
    assert "best is" not in said


def test_one_seed_has_no_verdict_and_the_reason_is_told(record: Make, printed: Printed) -> None:
    said = opening(printed(print_run, exact(record, seeds=1, dpo=0.95, ipo=0.5)))
    assert "1 seed" in said
    assert "bandit (known reward): no verdict: a single seed has no interval; --seeds 3 gives one." in said
    for word in ("best", "worse", "equivalent"):
        assert word not in said.split("Against")[0]


def test_a_single_algorithm_has_its_numbers_alone(record: Make, printed: Printed) -> None:
    said = opening(printed(print_run, exact(record, dpo=0.95) + certain(record, dpo="collapsed")))
    assert ".95" in said
    assert "what was rejected collapses under dpo." in said
    for word in ("best", "worse", "Against", "verdict"):
        assert word not in said


def test_what_would_decide_is_told(record: Make, tmp_path: Path) -> None:
    cells = [
        record(a, seed=s, attained_1=v + 0.02 * i * (s - 1), kl=1.0)
        for i, (a, v) in enumerate((("dpo", 0.92), ("ipo", 0.9)))
        for s in range(3)
    ]
    (told,) = screen(cells).sentences()
    assert "cannot be told from it: ipo (-0.02±0.05, " in told
    assert " more seeds would decide)" in told
    held = [
        record(a, "travel", s, heldout_accuracy_at_1=v, kl=1.0)
        for a, v in (("dpo", 0.9), ("ipo", 0.6))
        for s in range(3)
    ]
    for cell in held:
        right = 9 if cell["algorithm"]["name"] == "dpo" else 6
        store_items(tmp_path, cell["key"], [float(7 * i % 10 < right) for i in range(10)])
    (told,) = screen(held, tmp_path).sentences()
    assert told.startswith("travel (held-out pairs): best is dpo (0.9 held-out accuracy)")
    assert re.search(r"cannot be told from it: ipo \(-0.3±[0-9.]+, [0-9]+ more held-out prompts", told)


def test_a_seed_more_is_singular_and_never_none(record: Make) -> None:
    for count in range(1, 12):
        cells = [
            record(a, seed=s, attained_1=v + 0.002 * count * i * (s - 1), kl=1.0)
            for i, (a, v) in enumerate((("dpo", 0.92), ("ipo", 0.9)))
            for s in range(3)
        ]
        (told,) = screen(cells).sentences()
        assert "0 more" not in told.replace("10 more", "")
        assert "1 more seeds" not in told.replace("11 more", "")


def test_who_stands_first_is_best_on_most_tasks(record: Make) -> None:
    cells = exact(record, "a", dpo=0.5, ipo=0.9, kto=0.2) + exact(record, "b", dpo=0.5, ipo=0.9, kto=0.2)
    cells += exact(record, "c", dpo=0.9, ipo=0.5, kto=0.2)
    found = screen(cells)
    assert found.order == ["ipo", "dpo", "kto"]
    assert [c.header for c in found.table().columns] == ["task", "data", "ipo", "dpo", "kto", "unit"]


def test_a_number_that_says_nothing_does_not_lead(record: Make) -> None:
    """npo's seeds scatter so much that it cannot be told from the best; ipo is behind it for certain."""
    cells = exact(record, dpo=0.95, ipo=0.9)
    cells += [record("npo", seed=s, attained_1=v, kl=1.0) for s, v in enumerate((0.1, 0.9, 0.1))]
    found = screen(cells)
    assert found.order == ["dpo", "ipo", "npo"]
    columns = {c.header: c.cells[0] for c in found.table().columns}
    assert (columns["ipo"], columns["npo"]) == (".90 worse", ".37 ?")


def test_an_algorithm_that_did_not_run_somewhere(record: Make) -> None:
    cells = exact(record, "a", dpo=0.5, ipo=0.9) + exact(record, "b", dpo=0.5)
    cells += [record("npo", "b", s, status="failed", error="no") for s in range(3)]
    columns = {c.header: list(c.cells) for c in screen(cells).table().columns}
    assert columns["ipo"][1] == "–"
    assert columns["npo"] == ["–", "–"]
    assert columns["dpo"] == [".50 worse", ".50"]


def test_many_algorithms_stand_below_one_another(record: Make) -> None:
    cells = exact(record, also={f"a{i}": 0.9 - 0.1 * i for i in range(7)})
    table = screen(cells).table()
    assert list(table.columns[0].cells) == [f"a{i}" for i in range(7)]
    assert not table.narrow
    assert table.width <= 80


def test_more_than_forty_rows(record: Make, printed: Printed) -> None:
    cells = exact(record, also={f"a{i}": 0.9 - 0.01 * i for i in range(45)})
    text = printed(print_run, cells)
    said = opening(text)
    assert "no verdict: 45 rows are too many to compare all with all; name some by --algos." in said
    assert all(f"a{i} " in said for i in range(45))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [60, 80, 200])
def test_long_names_and_names_with_markup(record: Make, printed: Printed, width: int) -> None:
    long = "a-task-with-such-a-long-name" * 4
    evil = "my[/]algo[bold]\x1b[31mred\u202e"
    cells = exact(record, long, also={evil: 0.9, "x" * 70: 0.5}) + exact(record, "[red]t[/red]", dpo=0.5)
    text = printed(print_run, cells, width=width)
    assert max(map(len, text.splitlines())) <= width
    for forbidden in ("\x1b", "\u202e"):
        assert forbidden not in text
    said = opening(text)
    assert "my[/]algo[bold]red" in "".join(said.split())
    assert "[red]t[/red]" in said


def test_what_nobody_can_judge(record: Make, printed: Printed) -> None:
    """A task whose runs all failed has no known reward, and records older than the states do not stop."""
    failed = [record(a, "ukp", s, status="failed", error="no") for a in ("dpo", "ipo") for s in range(3)]
    old = [record(a, "old", s, kl=1.0, rejected_logp=-5.0) for a in ("dpo", "ipo") for s in range(3)]
    for task, cells in (("ukp", failed), ("old", old)):
        table = screen(cells).table()
        cells_of = {c.header: list(c.cells) for c in table.columns}
        assert cells_of == {"task": [task], "data": ["unknown"], "dpo": ["–"], "ipo": ["–"], "unit": [""]}
        assert screen(cells).sentences() == []
    assert "known reward" not in printed(print_run, failed)


def test_states_of_certain_preferences(record: Make, printed: Printed) -> None:
    states = {"dpo": "collapsed", "ipo": "converged", "kto": "falling", "sft": "rising", "npo": "saturated"}
    said = opening(printed(print_run, certain(record, **states), width=120))
    for word in ("collapses", "stops", "keeps falling", "keeps rising", "saturates"):
        assert word in said
    assert (
        "what was rejected stops under ipo; keeps falling under kto; keeps rising under sft; collapses under "
        "dpo; saturates under npo." in said
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.912, ".91"), (0.0, ".00"), (-0.31, "-.31"), (1.0, "1.00"), (0.999, "1.00"), (12.34, "12.3"),
     (-12.34, "-12.3"), (1.5, "1.50"), (10.5, "10.5"), (2.3e7, "2.3e7")],
)  # fmt: skip
def test_fractions_have_no_leading_zero(value: float, text: str) -> None:
    assert fraction(value) == text


def test_a_number_that_two_decimals_hide(record: Make) -> None:
    """By --metric anything may stand there: a gap of 2.2e-5 is not .00."""
    gaps = [record(a, seed=s, frontier_gap=v * (s + 1), kl=1.0)
            for a, v in (("dpo", 1.1e-5), ("ipo", 0.03)) for s in range(3)]  # fmt: skip
    told = Screen([verdict_on("bandit", group(gaps), no_items, "frontier_gap")]).table()
    cells = {c.header: c.cells[0] for c in told.columns}
    assert cells["dpo"] == "2.2e-5 best"
    assert cells["ipo"].split()[0] == "0.06"
