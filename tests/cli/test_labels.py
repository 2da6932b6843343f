"""`--labels`: the default, one line on stderr, the record, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from runs import FEW_SAMPLES, by_name

import xpo_bench
from xpo_bench import plugins
from xpo_bench.errors import UsageError
from xpo_bench.report.records import record_of
from xpo_bench.report.reproduce import command
from xpo_bench_plugins.algorithms.dpo import DPO

Command = Callable[..., Any]

ROWS = [
    {"prompt": "x", "chosen": "a", "rejected": "b", "votes_chosen": 3, "votes_rejected": 1},
    {"prompt": "x", "chosen": "b", "rejected": "c", "label": "tie"},
    {"prompt": "x", "chosen": "a", "rejected": "c"},
]
UNEQUAL = list(enumerate((0.5, 0.6, 1.0, 0.75, 1.0)))
"""Rows that become two examples, and rows that stay one."""


@pytest.fixture
def votes(tmp_path: Path) -> str:
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return str(path)


def run(warm: Command, out: Path, *words: str) -> tuple[dict[str, Any], list[str]]:
    """The record of a run of DPO, and the lines of stderr that are about labels."""
    done = warm("run", "--algos", "dpo", "--seeds", "1", "--steps", "5", *words, "--out", str(out))
    assert done.code == 0, done.err
    (record,) = by_name(out).values()
    assert record["task"]["budget"]["labels"] == record["labels"]
    return record, [line for line in done.err.splitlines() if "labels:" in line]


def test_votes_are_soft_on_a_table_by_default(warm: Command, votes: str, tmp_path: Path) -> None:
    asked = {"default": (), **{labels: ("--labels", labels) for labels in ("soft", "hard", "sampled")}}
    runs = {name: run(warm, tmp_path / name, "--data", votes, *words) for name, words in asked.items()}
    assert {asked: record["labels"] for asked, (record, _) in runs.items()} == {
        "default": "soft",
        "soft": "soft",
        "hard": "hard",
        "sampled": "sampled",
    }
    assert all(len(lines) == 1 for _, lines in runs.values())
    assert "labels: soft on votes (both orientations of a row" in runs["default"][1][0]
    assert "labels: hard on votes (a row trains on its majority, ties are left out" in runs["hard"][1][0]
    policies = {asked: json.dumps(record["final_policy"]) for asked, (record, _) in runs.items()}
    assert policies["default"] == policies["soft"] != policies["hard"]
    assert runs["default"][0]["key"] == runs["soft"][0]["key"]
    for record, _ in runs.values():
        assert f"--labels {record['labels']}" in command(record_of(record), plugins.load())


def test_where_nothing_is_uncertain_labels_are_hard_whatever_is_asked(warm: Command, tmp_path: Path) -> None:
    data = tmp_path / "plain.csv"
    data.write_text("prompt,chosen,rejected\nx,a,b\nx,b,c\n", "utf-8")
    plain, lines = run(warm, tmp_path / "plain", "--data", str(data))
    asked, _ = run(warm, tmp_path / "asked", "--data", str(data), "--labels", "soft")
    assert plain["labels"] == asked["labels"] == "hard"
    assert plain["key"] == asked["key"]
    assert lines == ["xpo-bench: labels: hard (no row holds votes, a probability or a tie)"]


def test_the_suites_own_worlds_keep_their_drawn_labels(warm: Command, tmp_path: Path) -> None:
    """There `p_chosen` is the truth, which training does not see unless it is told to."""
    own, told = run(warm, tmp_path / "own", "--tasks", "bandit")
    hard, _ = run(warm, tmp_path / "hard", "--tasks", "bandit", "--labels", "hard")
    truth, lines = run(warm, tmp_path / "truth", "--tasks", "bandit", "--labels", "soft")
    assert own == hard
    assert own["labels"] == "hard"
    assert truth["labels"] == "soft"
    assert truth["final_policy"] != own["final_policy"]
    assert len(lines) == 1
    # its rows do hold a probability
    assert len(told) == 1
    assert told[0].startswith("xpo-bench: labels: hard (the label that each row was given; its p_chosen")


def test_probabilities_and_votes_of_unpaired_rows_are_said_to_be_unread(
    warm: Command, tmp_path: Path
) -> None:
    data = tmp_path / "likes.jsonl"
    rows = [
        {"prompt": "x", "completion": "a", "label": True, "votes_chosen": 3, "votes_rejected": 1},
        {"prompt": "x", "completion": "b", "label": False, "p_chosen": 0.7},
        {"prompt": "y", "completion": "b", "label": False},
    ]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = ("--algos", "kto", "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "out"))
    done = warm("run", "--data", str(data), *words)
    assert done.code == 0, done.err
    assert "2 rows: p_chosen or votes not read: they are of pairs, and unpaired rows have a label" in done.err


def test_language_models_keep_hard_labels_and_take_soft_ones(votes: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"data": votes, "model": "tiny", "steps": 3, "batch_size": 2, "seeds": 1}
    hard, soft = (
        xpo_bench.run("dpo", **words, set=FEW_SAMPLES, out=tmp_path / str(asked), labels=asked).cells[0]
        for asked in (None, "soft")
    )
    assert (hard["labels"], soft["labels"]) == ("hard", "soft")
    assert hard["status"] == soft["status"] == "ok"
    assert hard["metrics"]["chosen_logp"] != soft["metrics"]["chosen_logp"]


def test_a_row_stays_whole_however_a_step_is_cut(tmp_path: Path) -> None:
    """Micro-batches cut between rows of the data; steps cut by tokens take rows with all outcomes."""
    rows = [
        {"prompt": f"q{i}", "chosen": "yes" * (i + 1), "rejected": "no", "p_chosen": p} for i, p in UNEQUAL
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words: dict[str, Any] = {"data": str(path), "model": "tiny", "steps": 3, "seeds": 1, "labels": "soft"}
    for algorithm in ("dpo", "bco"):
        whole, cut, by_tokens = (
            xpo_bench.run(
                algorithm, **words, set=FEW_SAMPLES | more, out=tmp_path / algorithm / str(i)
            ).cells[0]
            for i, more in enumerate(
                (
                    {"task.batch_size": 3},
                    {"task.batch_size": 3, "task.micro_batch": 1},
                    {"task.batch_tokens": 120},
                )
            )
        )
        assert whole["status"] == cut["status"] == by_tokens["status"] == "ok"
        for name in ("chosen_logp", "rejected_logp", "kl"):
            assert cut["metrics"][name] == pytest.approx(whole["metrics"][name], rel=1e-4)


@dataclass(frozen=True)
class Coupled(DPO):
    """A loss over a batch that was written before there were weights."""

    name: ClassVar[str] = "coupled"
    batch_coupled: ClassVar[bool] = True


def test_an_older_loss_over_a_batch_is_refused_by_name(votes: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"coupled does not fit task votes: its loss .*--labels hard"):
        xpo_bench.run(Coupled, data=votes, steps=2, seeds=1, out=tmp_path / "run")
    result = xpo_bench.run(Coupled, data=votes, steps=2, seeds=1, out=tmp_path / "run", labels="hard")
    assert result.ok
