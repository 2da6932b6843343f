"""Records gathered over seeds: a cell that was run again is one run, not two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpo_bench.report.content import assemble
from xpo_bench.report.records import records_of
from xpo_bench.report.runs import latest

Make = Callable[..., dict[str, Any]]


def twice(record: Make) -> list[dict[str, Any]]:
    """Two algorithms at two seeds, computed again by a later command, whose numbers differ a little."""
    cells = []
    for run in ("old", "new"):
        for algorithm in ("dpo", "ipo"):
            for seed in (0, 1):
                shift = 0.1 if run == "new" else 0.0
                cell = record(algorithm, seed=seed, kl=1.0, attained_1=0.5 + 0.01 * seed + shift)
                cells.append({**cell, "key": f"{run}-{algorithm}-{seed}"})
    return cells


def planned(cells: list[dict[str, Any]]) -> list[str]:
    return [cell["key"] for cell in cells]


def test_the_record_that_was_planned_last_counts(record: Make) -> None:
    cells = twice(record)
    kept = latest(records_of(reversed(cells)), planned(cells))
    assert {r.key for r in kept} == {cell["key"] for cell in cells if cell["key"].startswith("new")}
    assert latest(records_of(cells[:4]), planned(cells)) == records_of(cells[:4])


def test_a_report_counts_a_cell_once_and_says_what_it_left_out(record: Make, tmp_path: Path) -> None:
    cells = twice(record)
    report = assemble(tmp_path, cells, {"plan": [{"key": key} for key in planned(cells)]})
    assert [len(g.records) for g in report.groups] == [2, 2]
    assert all(g.estimate("attained_1").mean > 0.6 for g in report.groups)  # type: ignore[union-attr]
    left = "4 records left out whose cells a later command ran again, from other sources"
    assert left in report.sentences("ran")
    assert not any("left out" in line for line in assemble(tmp_path, cells[:4]).sentences("ran"))
