"""Tasks of rows in memory: by name, checked as files are, and sent to other processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from runs import content, same

import xpo_bench
from xpo_bench.data import registered
from xpo_bench.errors import DataError, UsageError

ROWS: list[dict[str, Any]] = [{"prompt": f"q{i % 4}", "chosen": "a", "rejected": "b"} for i in range(12)]
WORDS: dict[str, Any] = {"steps": 5, "seeds": 2}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name stays registered."""
    monkeypatch.setattr(registered, "_ROWS", {})
    monkeypatch.setattr(registered, "_TASKS", {})


def test_rows_have_the_numbers_of_their_file(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    task = xpo_bench.register_task("mine", ROWS, heldout=0.25)
    ours = xpo_bench.run(["dpo", "ipo"], ["mine"], out=tmp_path / "1", **WORDS)
    file = xpo_bench.run(
        ["dpo", "ipo"], data=str(tmp_path / "mine.jsonl"), heldout=0.25, out=tmp_path / "2", **WORDS
    )
    kept = [name for name in ours.cells[0]["metrics"] if not name.endswith(("_per_s", "_mb", "_s"))]
    for a, b in zip(ours.cells, file.cells, strict=True):
        assert {n: a["metrics"][n] for n in kept} == {n: b["metrics"][n] for n in kept}
        assert a["task"]["data"]["fingerprint"] == b["task"]["data"]["fingerprint"]
        assert (a["task"]["name"], a["task"]["data"]["source"]) == ("mine", "mine")
    assert xpo_bench.run(["dpo", "ipo"], [task], out=tmp_path / "1", **WORDS).computed == 0
    frame: Any = pd.DataFrame([{**row, "split": None} for row in ROWS])
    xpo_bench.register_task("mine", frame, heldout=0.25)
    assert xpo_bench.run(["dpo", "ipo"], "mine", out=tmp_path / "1", **WORDS).computed == 0
    xpo_bench.register_task("mine", ROWS[:11], heldout=0.25)
    assert xpo_bench.run("dpo", "mine", out=tmp_path / "1", **WORDS).computed == 2
    assert "rows registered in Python as mine" in ours.report(tmp_path / "r.html").read_text("utf-8")


def test_other_processes_are_sent_the_rows(tmp_path: Path) -> None:
    xpo_bench.register_task("mine", ROWS)
    for name, workers in (("one", 1), ("two", 2)):
        done = xpo_bench.run(["dpo", "ipo"], "mine", out=tmp_path / name, workers=workers, **WORDS)
        assert done.ok
    assert same(content(tmp_path / "one"), content(tmp_path / "two"))


def test_a_search_keeps_the_name(tmp_path: Path) -> None:
    xpo_bench.register_task("mine", ROWS)
    found = xpo_bench.run("dpo", "mine", target_kl=0.1, steps=20, seeds=1, out=tmp_path)
    assert [target["task"] for target in found.targets] == ["mine"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, {"prompt": "x", "chosen": "a", "rejected": "a"}], "mine row 13: chosen == rejected"),
        ([*ROWS, {"prompt": " ", "chosen": "a", "rejected": "b"}], "mine row 13: empty prompt"),
        ([*ROWS, "x"], "mine row 13: want a dictionary of columns, got str"),
        ([{"question": "x"}], "mine row 1: columns question hold neither prompt, chosen, rejected"),
        ([], "mine: empty data set"),
        ("prefs.jsonl", "mine: want a list of rows, each a dictionary of columns, got str"),
        (7, "mine: want a list of rows, each a dictionary of columns, got int"),
    ],
)
def test_bad_rows_are_refused_by_their_number(rows: Any, said: str) -> None:
    xpo_bench.register_task("mine", ROWS)
    with pytest.raises(DataError) as raised:
        xpo_bench.register_task("mine", rows)
    assert str(raised.value).startswith(said)
    assert len(registered._ROWS["mine"]) == 12, "what was registered before stays"


def test_names_are_those_of_tasks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"task name 'My Rows': want lower-case letters.* such as 'my-rows'"):
        xpo_bench.register_task("My Rows", ROWS)
    with pytest.raises(UsageError, match=r"task name '': want lower-case letters.* such as 'mine'"):
        xpo_bench.register_task("", ROWS)
    xpo_bench.register_task("bandit", ROWS)
    with pytest.raises(UsageError, match="task 'bandit': rows are registered under the name of an installed"):
        xpo_bench.run("dpo", "bandit", out=tmp_path, **WORDS)


def test_strengths_are_read_as_those_of_a_file() -> None:
    graded = [{**row, "strength": grade % 5 + 1} for grade, row in enumerate(ROWS)]
    task = xpo_bench.register_task("graded", graded, strength="0.7,centre=3")
    pairs = task.data(0, xpo_bench.ModelSpec()).train
    first = pairs[3]
    assert isinstance(first, xpo_bench.Pair)
    assert first.p_chosen == pytest.approx(1 / (1 + math.exp(-0.7)))
    with pytest.raises(UsageError, match="--strength"):
        xpo_bench.register_task("graded", graded, strength="much")


def test_rows_are_copied() -> None:
    rows = [dict(row) for row in ROWS]
    task = xpo_bench.register_task("mine", rows)
    rows[0]["chosen"] = "b"
    assert all(pair.chosen == "a" for pair in task.data(0, xpo_bench.ModelSpec()).train)  # type: ignore[union-attr]
