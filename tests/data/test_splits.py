"""Held-out rows: whole prompts unless rows are asked for, and never silently beside a split of the set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import DataError

Command = Callable[..., Any]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def repeated(prompts: int, each: int) -> list[dict[str, Any]]:
    """Rows of every prompt, which share the completion "same" and have one of their own."""
    return [
        {"prompt": f"x{p}", "chosen": f"a{p}.{k}", "rejected": "same"}
        for p in range(prompts)
        for k in range(each)
    ]


def load(path: Path, share: float, seed: int = 0, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(path), **options), share, np.random.default_rng(seed))


def prompts(dataset: Dataset) -> tuple[set[str], set[str]]:
    return {e.prompt for e in dataset.train}, {e.prompt for e in dataset.heldout}


def test_a_prompt_stands_on_one_side(tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", repeated(20, 5))
    for seed in range(5):
        train, heldout = prompts(dataset := load(tmp_path / "d.jsonl", 0.2, seed))
        assert not train & heldout
        assert len(dataset.heldout) == 20
    train, heldout = prompts(load(tmp_path / "d.jsonl", 0.2, split_by="row"))
    assert train & heldout


def test_rows_are_drawn_as_they_always_were(tmp_path: Path) -> None:
    """`--split-by row`, and prompts of one row each, give the split that earlier versions gave."""
    write(tmp_path / "d.jsonl", repeated(12, 1))
    by_prompt, by_row = (load(tmp_path / "d.jsonl", 0.25, 3, split_by=by) for by in ("prompt", "row"))
    drawn = sorted(np.random.default_rng(3).permutation(12)[:3].tolist())
    assert [e.prompt for e in by_row.heldout] == [f"x{i}" for i in drawn]
    assert by_prompt == by_row


def test_prompts_of_uneven_size_come_near_the_fraction(tmp_path: Path) -> None:
    rows = [row for p in range(30) for row in repeated(p + 1, 1 + p % 7)[-(1 + p % 7) :]]
    write(tmp_path / "d.jsonl", rows)
    for seed in range(5):
        held = len(load(tmp_path / "d.jsonl", 0.3, seed).heldout)
        assert abs(held - 0.3 * len(rows)) <= 3.5  # half of the largest prompt
    # one prompt has nearly all rows: it is on one side, whichever, and neither side is empty
    write(tmp_path / "e.jsonl", [*repeated(1, 50), *repeated(2, 1)[1:]])
    dataset = load(tmp_path / "e.jsonl", 0.5)
    assert sorted((len(dataset.train), len(dataset.heldout))) == [1, 50]


def test_one_prompt_cannot_be_divided(tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", repeated(1, 6))
    with pytest.raises(DataError, match=r"1 prompt cannot be divided.*--split-by row"):
        load(tmp_path / "d.jsonl", 0.5)
    assert len(load(tmp_path / "d.jsonl", 0.5, split_by="row").heldout) == 3


# --------------------------------------------------------------------------- from the command line

RUN = ["run", "--algos", "dpo", "--data", "d.jsonl", "--seeds", "1", "--steps", "3", "--quiet"]


def test_the_record_counts_what_is_on_both_sides(warm: Command, tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", repeated(10, 4))
    by_prompt = warm(*RUN, "--heldout", "0.3", "--out", "p", "--json")
    assert by_prompt.code == 0, by_prompt.err
    task = by_prompt.json["cells"][0]["task"]
    assert (task["options"]["split_by"], task["data"]["heldout"]) == ("prompt", 12)
    assert task["data"]["split_overlap"] == {
        "prompts": 0,
        "prompt_rows": 0,
        "completions": 1,
        "completion_rows": 12,
    }
    by_row = warm(*RUN, "--heldout", "0.3", "--split-by", "row", "--out", "r", "--json")
    cell = by_row.json["cells"][0]
    shared = cell["task"]["data"]["split_overlap"]
    assert 0 < shared["prompts"] <= 10
    assert shared["prompt_rows"] >= shared["prompts"]
    assert "heldout_reward_accuracy" in cell["metrics"]
    # a table has no opinion on prompts that it has not seen: said in every view, with the remedy
    assert "heldout_reward_accuracy" not in by_prompt.json["cells"][0]["metrics"]
    for told in (warm("show", "p").out, warm("report", "p", "--md", "-").out):
        words = " ".join(told.split())
        assert "12 held out by prompt; on both sides of the split: 1 completion" in words
        assert "no held-out metrics" in words
        assert "--split-by row" in words
    words = " ".join(warm("show", "r").out.split())
    assert "12 held out by row; on both sides of the split:" in words
    assert "no held-out metrics" not in words


def test_progress_says_what_a_tabular_policy_cannot_be_asked(warm: Command, tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", repeated(10, 4))
    done = warm(*RUN[:-1], "--heldout", "0.3", "--out", "p")
    assert "no held-out metrics, since a tabular policy learns nothing of prompts" in " ".join(
        done.err.split()
    )


def test_a_split_of_the_set_and_heldout_exclude_each_other(warm: Command, tmp_path: Path) -> None:
    rows = [{**row, "split": "test" if i % 4 == 0 else "train"} for i, row in enumerate(repeated(8, 2))]
    write(tmp_path / "d.jsonl", rows)
    done = warm(*RUN, "--heldout", "0.5")
    assert done.code == 2
    assert done.lines[-1] == (
        "xpo-bench: d.jsonl: --heldout 0.5, but the split of the set holds out 4 of its 16 rows already; "
        "leave out --heldout, or take the split column out of the set"
    )
    assert warm(*RUN, "--out", "r", "--json").json["cells"][0]["task"]["data"]["heldout"] == 4
    # what the set itself has on both sides is told as `xpo-bench data` tells it
    described = warm("data", "d.jsonl", "--json").json["split_overlap"]
    recorded = warm("show", "r", "--json").json["cells"][0]["task"]["data"]["split_overlap"]
    assert recorded == {name: described[name] for name in recorded}
    assert "on both sides of the split: 4 prompts" in " ".join(warm("show", "r").out.split())
    # a split column that holds nothing out leaves the question open, and --heldout answers it
    write(tmp_path / "d.jsonl", [{**row, "split": "train"} for row in repeated(8, 2)])
    done = warm(*RUN, "--heldout", "0.5", "--out", "s", "--json")
    assert done.json["cells"][0]["task"]["data"]["heldout"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split-by", "row"], "--split-by goes with --heldout F: without it no row is held out by it"),
        (["--set", "task.split_by=row"], "--split-by goes with --heldout F"),
        (["--heldout", "0.5", "--split-by", "person"], "'person' is not one of 'prompt', 'row'"),
    ],
)
def test_bad_words(warm: Command, tmp_path: Path, words: list[str], message: str) -> None:
    write(tmp_path / "d.jsonl", repeated(4, 2))
    done = warm(*RUN, *words)
    assert done.code == 2
    assert message in done.lines[-1]


def test_tasks_know_their_splits(warm: Command) -> None:
    done = warm("run", "--algos", "dpo", "--tasks", "bandit", "--split-by", "row")
    assert done.code == 2
    assert "--split-by goes with --data and --heldout" in done.lines[-1]
