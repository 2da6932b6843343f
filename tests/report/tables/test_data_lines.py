"""One line per data set of a run, from the fields that its records have."""

from __future__ import annotations

from typing import Any

import pytest

from xpo_bench.report.records import Record, record_of
from xpo_bench.report.tables.data_lines import data_lines

USED = {"rows": 10, "train": 8, "heldout": 2, "layout": "trl", "dropped": {}, "columns": {}}


def record(data: dict[str, Any] | None, task: str = "d", **notes: Any) -> Record:
    what = {"algorithm": {"name": "dpo"}, "status": "ok", "seed": 0}
    return record_of(what | {"task": {"name": task, "data": data}, "notes": notes})


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, "10 of 10 rows used; layout trl"),
        ({"rows": 13, "dropped": {"b": 1, "a": 2}}, "10 of 13 rows used; 3 dropped (2 a, 1 b); layout trl"),
        ({"rows": 4}, "10 examples from 4 rows; layout trl"),
        ({"rows": 1000, "train": 998}, "1,000 of 1,000 rows used; layout trl"),
        ({"columns": {"prompt": "q"}, "layout": "orca"}, "10 of 10 rows used; layout orca (prompt from q)"),
        ({"notes": {"odd": 3}}, "10 of 10 rows used; 3 rows: odd; layout trl"),
        ({"truncated": 4}, "10 of 10 rows used; 4 rows truncated; layout trl"),
        ({"truncated": 0, "boundary_merges": 0, "equal_ids": 0}, "10 of 10 rows used; layout trl"),
        ({"template": None}, "10 of 10 rows used; layout trl; no chat template (rows are text)"),
        ({"template": "model"}, "10 of 10 rows used; layout trl; the model's chat template"),
        ({"unfit": {"too long": 2}}, "10 of 10 rows used; 2 rows left out: too long; layout trl"),
        ({"template": "chatml"}, "10 of 10 rows used; layout trl; chat template chatml"),
        (
            {"template": {"name": "chatml", "hash": "1"}},
            "10 of 10 rows used; layout trl; chat template chatml",
        ),
        (
            {"boundary_merges": 2, "equal_ids": 1},
            "10 of 10 rows used; 2 rows where prompt and completion merge into one token; "
            "1 row left out for equal tokens on both sides; layout trl",
        ),
    ],
)
def test_lines(more: dict[str, Any], line: str) -> None:
    assert data_lines([record(USED | more), record(USED | more)]) == [f"d: {line}"]


def test_tasks_that_make_their_rows_have_no_line() -> None:
    assert (
        data_lines(
            [
                record(
                    {
                        "source": "synthetic",
                        "rows": 8,
                        "train": 8,
                        "heldout": 0,
                        "dropped": {},
                        "template": None,
                    }
                )
            ]
        )
        == []
    )
    assert data_lines([record(None)]) == []


def test_truncated_rows_of_records_that_have_them_in_their_notes() -> None:
    assert data_lines([record(USED, truncated=5)]) == ["d: 10 of 10 rows used; 5 rows truncated; layout trl"]
