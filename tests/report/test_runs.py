"""Records gathered over seeds: a cell that was run again is one run, not two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpo_bench.report.content import assemble
from xpo_bench.report.records import records_of
from xpo_bench.report.runs import group, latest

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


def test_seeds_of_two_sources_are_no_row(record: Make) -> None:
    """The later text counts alone, also where it has fewer seeds."""
    cells = []
    for source, seeds in (("aa", (0, 1, 2)), ("bb", (1,))):
        for seed in seeds:
            cell = record("mine", seed=seed, kl=1.0)
            algorithm = {**cell["algorithm"], "source": source}
            cells.append({**cell, "algorithm": algorithm, "key": f"{source}-{seed}"})
    assert [r.key for r in latest(records_of(cells), planned(cells))] == ["bb-1"]


def test_a_report_counts_a_cell_once_and_says_what_it_left_out(record: Make, tmp_path: Path) -> None:
    cells = twice(record)
    report = assemble(tmp_path, cells, {"plan": [{"key": key} for key in planned(cells)]})
    assert [len(g.records) for g in report.groups] == [2, 2]
    assert all(g.estimate("attained_1").mean > 0.6 for g in report.groups)  # type: ignore[union-attr]
    left = "4 records left out whose cells a later command ran again, from other sources"
    assert left in report.sentences("ran")
    assert not any("left out" in line for line in assemble(tmp_path, cells[:4]).sentences("ran"))


def swept(record: Make) -> list[dict[str, Any]]:
    """Eight values of a hyperparameter at two seeds, of which some have an error and one has not moved."""
    return [
        record(
            "dpo",
            seed=seed,
            config={"beta": float(beta)},
            status="ok" if beta < 7 else "failed",
            error=None if beta < 7 else "no",
            regulariser=["beta", 1],
            kl=0.0 if beta == 3 else 1.0 + beta,
            attained_1=0.1 * ((5 * beta) % 8) + 0.01 * seed,
            heldout_reward_accuracy=0.5 + 0.01 * beta,
        )
        for beta in range(8)
        for seed in (0, 1)
    ]


def test_few_rows_are_the_first_of_all(record: Make, tmp_path: Path) -> None:
    whole, few = (assemble(tmp_path, swept(record), rows=rows) for rows in (None, 3))
    assert [t.title for t in few.tables] == [t.title for t in whole.tables]
    cut = 0
    for short, long in zip(few.tables, whole.tables, strict=True):
        assert short.rows + short.left_out == long.rows
        assert (short.note, [c.header for c in short.columns]) == (
            long.note,
            [c.header for c in long.columns],
        )
        for a, b in zip(short.columns, long.columns, strict=True):
            assert list(a.cells) == list(b.cells)[: short.rows]
            assert list(a.best) == list(b.best)[: short.rows]
        cut += short.left_out > 0
    assert cut == 3  # verdicts, the task, and the configurations
    assert [s.sentences for s in few.sections] == [
        s.sentences for s in whole.sections if s.sentences or s.tables
    ]


def test_records_that_share_parts_are_those_that_do_not(record: Make, tmp_path: Path) -> None:
    apart = swept(record)
    known: dict[str, Any] = {}
    shared = [{name: known.setdefault(json.dumps(part), part) for name, part in r.items()} for r in apart]
    assert shared[0]["environment"] is shared[1]["environment"]
    assert records_of(shared) == records_of(apart)
    one, other = (assemble(tmp_path, cells) for cells in (shared, apart))
    assert [t.columns for t in one.tables] == [t.columns for t in other.tables]
    assert [s.sentences for s in one.sections] == [s.sentences for s in other.sections]


def test_settings_are_the_same_in_whatever_order_they_are_spelt(record: Make) -> None:
    cells = [record(seed=0, config={"a": 1.0, "b": 2.0}), record(seed=1, config={"b": 2.0, "a": 1.0})]
    assert [len(g.records) for g in group(cells)] == [2]
    assert [len(g.records) for g in group([*cells, record(seed=2, config={"a": 1.0, "b": 3.0})])] == [2, 1]
