"""One line per data set of a run, from the fields that its records have."""

from __future__ import annotations

from typing import Any

import pytest

from xpo_bench.report.records import Record, record_of
from xpo_bench.report.tables.data_lines import data_lines

USED = {"rows": 10, "train": 8, "heldout": 2, "layout": "trl", "dropped": {}, "columns": {}}


SHARED = {"prompts": 1, "prompt_rows": 2, "completions": 0, "completion_rows": 0}


def record(data: dict[str, Any] | None, task: str = "d", **notes: Any) -> Record:
    what = {"algorithm": {"name": "dpo"}, "status": "ok", "seed": 0}
    return record_of(what | {"task": {"name": task, "data": data}, "notes": notes})


def split(overlap: dict[str, int], model: str, **options: Any) -> list[str]:
    raw = dict(record(USED | {"split_overlap": overlap}).raw)
    raw["task"] = raw["task"] | {"model": {"name": model}, "options": options}
    return data_lines([record_of(raw)])


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


def test_what_is_on_both_sides_of_the_split() -> None:
    assert split(SHARED, "tiny", heldout=0.2, split_by="prompt") == [
        "d: 10 of 10 rows used; 2 held out by prompt; on both sides of the split: "
        "1 prompt (in 2 of 2 held-out rows); layout trl"
    ]
    (line,) = split(SHARED | {"prompt_rows": 0, "prompts": 0}, "tabular", heldout=0.2, split_by="prompt")
    assert "both sides" not in line
    assert "those of 2 of the 2 held-out rows; --split-by row" in line
    # the split of the set itself has no such remedy
    (line,) = split(SHARED | {"prompt_rows": 1, "completions": 3, "completion_rows": 2}, "tabular")
    assert "1 prompt (in 1 of 2 held-out rows), 3 completions (in 2 of 2 held-out rows); no held-out" in line
    assert "--split-by" not in line
    synthetic = {**USED, "layout": "", "template": None, "split_overlap": SHARED}
    assert data_lines([record(synthetic)]) == [
        "d: 10 of 10 rows used; on both sides of the split: 1 prompt (in 2 of 2 held-out rows)"
    ]


def test_the_order_of_the_lines_is_not_that_of_the_keys() -> None:
    records = [record(USED, task) for task in ("noisy", "bandit")] + [record(USED | {"rows": 13}, "bandit")]
    assert data_lines(records) == data_lines(records[::-1])
    assert [line.split(":")[0] for line in data_lines(records)] == ["bandit", "bandit", "noisy"]
