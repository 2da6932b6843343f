"""Held-out rows: whole prompts unless rows are asked for, and never silently beside a split of the set."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from re import findall
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xpo_bench.contract.examples import Dataset, Pair
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


# --------------------------------------------------------------------------- by a column


def judged(people: int, each: int, **more: Any) -> list[dict[str, Any]]:
    """Rows of every person; all of them judge the same few prompts."""
    return [
        {
            "prompt": f"x{k % 3}",
            "chosen": f"a{p}.{k}",
            "rejected": "same",
            "annotator": f"p{p}",
            "n": p,
            **more,
        }
        for k in range(each)
        for p in range(people)
    ]


def sides(dataset: Dataset) -> tuple[set[str], set[str]]:
    """Who stands on which side, from the names of the completions."""
    train, heldout = (
        {e.chosen.split(".")[0] for e in rows if isinstance(e, Pair)}
        for rows in (dataset.train, dataset.heldout)
    )
    return train, heldout


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("by", ["annotator", "n"])
def test_all_rows_of_a_value_stand_on_one_side(tmp_path: Path, kind: str, by: str) -> None:
    """Text or numbers, in every kind of file: also where the column is read for nothing else."""
    rows, file = judged(10, 6), tmp_path / f"d{kind}"
    if kind == ".jsonl":
        write(file, rows)
    elif kind == ".csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        pd.DataFrame(rows).to_parquet(file)
    for seed in range(3):
        dataset = load(file, 0.3, seed, split_by=by)
        train, heldout = sides(dataset)
        assert (len(train), len(heldout), len(dataset.heldout)) == (7, 3, 18)
        assert not train & heldout
        assert {e.prompt for e in dataset.train} == {e.prompt for e in dataset.heldout}
    by_prompt = load(file, 0.3)
    assert {e.prompt for e in by_prompt.train}.isdisjoint({e.prompt for e in by_prompt.heldout})


def test_a_column_goes_by_each_of_its_names(tmp_path: Path) -> None:
    """That of the file, a path into a nested one, the one that it is read as, one that differs in case."""
    write(tmp_path / "d.jsonl", [{**row, "by": {"who": row["annotator"]}} for row in judged(6, 4)])
    split = load(tmp_path / "d.jsonl", 0.5, split_by="annotator")
    assert len(split.heldout) == 12
    mapped = load(tmp_path / "d.jsonl", 0.5, split_by="person", columns={"person": "annotator"})
    nested = load(tmp_path / "d.jsonl", 0.5, split_by="by.who")
    assert sides(split) == sides(mapped) == sides(nested)
    assert {e.person for e in mapped.heldout} == {name.replace("a", "p") for name in sides(split)[1]}
    write(tmp_path / "e.jsonl", [{**row, "Person": row["annotator"]} for row in judged(6, 4)])
    assert sides(load(tmp_path / "e.jsonl", 0.5, split_by="person")) == sides(split)


@pytest.mark.parametrize("column", ["cluster", "person", "annotator"])
@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_cluster_is_whose_preference_a_row_is_under_any_name(tmp_path: Path, column: str, kind: str) -> None:
    rows = [{**row, column: row.pop("annotator")} for row in judged(6, 4)]
    file = tmp_path / f"d{kind}"
    if kind == ".jsonl":
        write(file, rows)
    else:
        pd.DataFrame(rows).to_parquet(file)
    dataset = load(file, 0.5, split_by="cluster")
    assert sides(dataset) == sides(load(file, 0.5, split_by=column))
    assert not {e.person for e in dataset.train} & {e.person for e in dataset.heldout}
    mapped = [{("worker" if name == column else name): value for name, value in row.items()} for row in rows]
    write(tmp_path / "e.jsonl", mapped)
    read = load(tmp_path / "e.jsonl", 0.5, split_by="cluster", columns={column: "worker"})
    assert sides(read) == sides(dataset)


def test_a_row_that_makes_several_pairs_stays_whole(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"x{i}", "responses": ["a", "b", "c"], "scores": [3, 2, 1], "topic": f"t{i % 4}"}
        for i in range(12)
    ]
    write(tmp_path / "d.jsonl", rows)
    dataset = load(tmp_path / "d.jsonl", 0.25, split_by="topic")
    assert (len(dataset.train), len(dataset.heldout)) == (27, 9)
    assert len({e.source for e in dataset.heldout}) == 1
    # a pair of two rows may belong to two values
    graded = [{"prompt": f"x{i // 2}", "response": f"a{i}", "helpfulness": i, "who": "p"} for i in range(8)]
    write(tmp_path / "e.jsonl", graded)
    assert len(load(tmp_path / "e.jsonl", 0.25).heldout) == 1
    with pytest.raises(DataError, match=r"--split-by who: layout helpsteer2-graded makes pairs of several"):
        load(tmp_path / "e.jsonl", 0.25, split_by="who")


def test_values_that_do_not_divide(tmp_path: Path) -> None:
    rows = judged(4, 2)
    del rows[2]["annotator"]
    write(tmp_path / "d.jsonl", rows)
    with pytest.raises(
        DataError, match=r"d\.jsonl row 3: --split-by annotator: nothing in column annotator; want"
    ):
        load(tmp_path / "d.jsonl", 0.5, split_by="annotator")
    # of a row that is left out nobody asks
    write(tmp_path / "d.jsonl", [{**row, "rejected": ""} if i == 2 else row for i, row in enumerate(rows)])
    assert len(load(tmp_path / "d.jsonl", 0.5, split_by="annotator", on_bad_row="skip").train) > 0
    write(tmp_path / "e.jsonl", judged(1, 6))
    with pytest.raises(DataError, match=r"1 value of annotator cannot be divided; .* the rows of a value"):
        load(tmp_path / "e.jsonl", 0.5, split_by="annotator")


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


def test_people_are_held_out_whole_and_told_of(warm: Command, tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", judged(10, 6))
    words = ["--heldout", "0.3", "--split-by", "person", "--columns", "person=annotator"]
    done = warm(*RUN, *words, "--out", "r", "--json")
    assert done.code == 0, done.err
    cell = done.json["cells"][0]
    assert cell["task"]["options"]["split_by"] == "person"
    assert (cell["task"]["data"]["train"], cell["task"]["data"]["heldout"]) == (42, 18)
    assert "heldout_reward_accuracy" in cell["metrics"]  # the prompts are those of training
    assert cell["task"]["data"]["split_overlap"]["prompts"] == 3
    items = pd.read_parquet(next((tmp_path / "r" / "items").glob("*.parquet")))
    people = {split: set(rows["cluster"]) for split, rows in items.groupby("split")}
    assert len(people["heldout"]) == 3
    assert len(people["train"]) == 7
    assert not people["train"] & people["heldout"]
    assert "18 held out by person" in " ".join(warm("show", "r").out.split())
    assert warm("report", "r").code == 0
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    (command,) = findall(r"cell [0-9a-f]{24}<pre><code>xpo-bench (.*?)</code>", page)
    again = warm(*shlex.split(unescape(command)), "--out", "r", "--json")
    assert [c["key"] for c in again.json["cells"]] == [cell["key"]]


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
        (
            ["--heldout", "0.5", "--split-by", "person"],
            "xpo-bench: d.jsonl: --split-by person: no such column; want prompt, row or a column "
            "(has prompt, chosen, rejected)",
        ),
        (["--heldout", "0.5", "--split-by", "chosn"], "did you mean 'chosen'?"),
        (
            ["--heldout", "0.5", "--split-by", ""],
            "--split-by: nothing is named; want prompt, row or a column",
        ),
        (["--split-by", ""], "--split-by goes with --heldout F"),
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
