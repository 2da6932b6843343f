"""All tasks together: ranks, what is left of the frontier, and how many runs come how far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xpo_bench.report.items import no_items
from xpo_bench.report.runs import group
from xpo_bench.report.table import Table
from xpo_bench.report.verdicts.over_tasks import over_tasks
from xpo_bench.report.verdicts.screen import Screen
from xpo_bench.report.verdicts.task import verdict_on

Make = Callable[..., dict[str, Any]]
SPREAD = (-0.002, 0.0, 0.002)


def cells(record: Make, task: str, metric: str = "attained_1", **means: float) -> list[dict[str, Any]]:
    return [
        record(a, task, s, kl=1.0, data={"heldout": 6400}, **{metric: mean + SPREAD[(s * (i + 1) + i) % 3]})
        for i, (a, mean) in enumerate(means.items())
        for s in range(3)
    ]


def table(records: list[dict[str, Any]]) -> Table | None:
    by_task: dict[str, Any] = {}
    for g in group(records):
        by_task.setdefault(g.task, []).append(g)
    verdicts = [verdict_on(task, groups, no_items) for task, groups in by_task.items()]
    return over_tasks(verdicts, Screen(verdicts).order)


def by_header(found: Table | None) -> dict[str, dict[str, str]]:
    """Header -> row -> cell."""
    assert found is not None
    names = found.columns[0].cells
    return {c.header: dict(zip(names, c.cells, strict=True)) for c in found.columns[1:]}


def test_ranks_of_planted_means(record: Make) -> None:
    records = cells(record, "a", dpo=0.9, ipo=0.7, kto=0.5) + cells(record, "b", dpo=0.5, ipo=0.7, kto=0.5)
    found = by_header(table(records))
    assert found["rank on\na"] == {"dpo": "1", "ipo": "2", "kto": "3"}
    assert found["rank on\nb"] == {"ipo": "1", "dpo": "2–3", "kto": "2–3"}  # which of the two is not known
    assert found["mean rank"] == {"dpo": "1.75 (1.5–2)", "ipo": "1.5 (1.5–1.5)", "kto": "2.75 (2.5–3)"}


def test_the_gap_and_the_profile_are_of_scores(record: Make) -> None:
    """0 is the initial policy and 1 the best there is: 0.9 of held-out pairs is a score of 0.8."""
    records = cells(record, "a", dpo=0.9, ipo=0.4)
    records += cells(record, "b", "heldout_accuracy_at_1", dpo=0.95, ipo=0.6)
    found = by_header(table(records))
    gap = {name: float(cell.split("±")[0]) for name, cell in found["optimality\ngap"].items()}
    assert gap == {"dpo": pytest.approx(0.1, abs=1e-3), "ipo": pytest.approx(0.7, abs=1e-3)}
    assert found["score\n≥ 0.5"] == {"dpo": "100%", "ipo": "0%"}
    assert found["score\n≥ 0.8"] == {"dpo": "100%", "ipo": "0%"}
    assert found["score\n≥ 0.95"] == {"dpo": "0%", "ipo": "0%"}


def test_who_lacks_a_task_has_no_mean_rank(record: Make) -> None:
    records = cells(record, "a", dpo=0.9, ipo=0.7, kto=0.5) + cells(record, "b", dpo=0.5, ipo=0.7)
    found = by_header(table(records))
    assert found["rank on\nb"]["kto"] == "–"
    assert found["mean rank"]["kto"] == "–"
    assert "–" not in found["mean rank"]["dpo"].split(" ")[0]


def test_one_task_has_no_summary(record: Make) -> None:
    assert table(cells(record, "a", dpo=0.9, ipo=0.7)) is None
    single = [record(a, t, attained_1=v, kl=1.0) for t in "ab" for a, v in (("dpo", 0.9), ("ipo", 0.5))]
    assert table(single) is None  # one seed ranks nobody
    certain = [
        record(a, "c", s, notes={"rejected_state": "falling"}) for a in ("dpo", "ipo") for s in range(3)
    ]
    assert table(cells(record, "a", dpo=0.9, ipo=0.7) + certain) is None


def test_who_has_not_moved_is_in_no_rank(record: Make) -> None:
    still = [record("still", t, s, attained_1=0.99, kl=1e-13) for t in "ab" for s in range(3)]
    records = cells(record, "a", dpo=0.9, ipo=0.7) + cells(record, "b", dpo=0.5, ipo=0.7) + still
    found = by_header(table(records))
    assert set(found["mean rank"]) == {"dpo", "ipo"}
    assert found["rank on\na"] == {"dpo": "1", "ipo": "2"}
