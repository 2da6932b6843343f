"""What a user gets wrong costs one line and exit status 2: what, where, and what would be right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

RUN = ["run", "--tasks", "deterministic", "--steps", "10", "--seeds", "1"]
DATA = ["run", "--algos", "dpo", "--model", "tabular", "--data"]
TINY = ["run", "--algos", "dpo", "--data", "good.jsonl", "--model", "tiny", "--device", "cpu"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The files that the commands below name."""

    def jsonl(name: str, *rows: dict[str, Any]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    good = {"prompt": "x", "chosen": "a", "rejected": "b"}
    jsonl("good.jsonl", good)
    jsonl("no-chosen.jsonl", good, {"prompt": "x", "rejected": "b"})
    jsonl("equal.jsonl", good, good, {"prompt": "x", "chosen": "a", "rejected": "a"})
    jsonl("empty.jsonl")
    jsonl("singles.jsonl", {"prompt": "x", "completion": "a", "label": True})
    (tmp_path / "world.json").write_text('{"x": {"reference": {"a": 0.4, "c": 0.6}}}', "utf-8")
    (tmp_path / "not-a-model").mkdir()
    (tmp_path / "a-file").touch()
    (tmp_path / "plan.toml").write_text('algo = "dpo"', "utf-8")


# the bad inputs that the suite promises to refuse, through the installed command
PROMISED = {
    "unknown algorithm": ([*RUN, "--algos", "dpoo"], "unknown algorithm 'dpoo'; did you mean 'dpo'?"),
    "unknown hyperparameter": (
        [*RUN, "--algos", "dpo", "--set", "dpo.bata=1"],
        "unknown setting of dpo 'bata'; did you mean",
    ),
    "negative beta": (
        [*RUN, "--algos", "dpo", "--set", "dpo.beta=-1"],
        "dpo.beta = -1: input should be greater than 0",
    ),
    "beta is nan": ([*RUN, "--algos", "dpo", "--set", "dpo.beta=nan"], "dpo.beta = nan: input should be"),
    "missing file": ([*DATA, "missing.jsonl"], "missing.jsonl: no such file"),
    "no chosen": ([*DATA, "no-chosen.jsonl"], "no-chosen.jsonl row 2: missing column chosen"),
    "empty data set": ([*DATA, "empty.jsonl"], "empty.jsonl: empty data set; at least one row is needed"),
    "chosen is rejected": ([*DATA, "equal.jsonl"], "equal.jsonl row 3: chosen == rejected ('a')"),
    "no model": (
        ["run", "--algos", "dpo", "--data", "good.jsonl", "--model", "./not-a-model"],
        "has no config.json",
    ),
    "unwritable": (
        [*RUN, "--algos", "dpo", "--out", "a-file/run"],
        "--out a-file/run: cannot be written (Not a directory)",
    ),
    "no such device": (
        [*RUN, "--algos", "dpo", "--device", "cuda:7"],
        "--device cuda:7: not on this machine (there is: cpu",
    ),
}

OTHERS = {
    "a file that is not there": (
        [*RUN, "--algos", "my.py"],
        "--algos my.py: there is no such file in ",
    ),
    "unknown task": (
        ["run", "--algos", "dpo", "--tasks", "bandid"],
        "unknown task 'bandid'; did you mean 'bandit'?",
    ),
    "unknown suite": (
        ["run", "--algos", "dpo", "--suite", "quik"],
        "unknown suite 'quik'; did you mean 'quick'?",
    ),
    "unknown option": (["run", "--alogs", "dpo"], "No such option '--alogs'"),
    "unknown command": (["rum"], "No such command 'rum'"),
    "unknown list": (["list", "algo"], "unknown list 'algo'; did you mean 'algos'?"),
    "unknown optimizer": (
        [*RUN, "--algos", "dpo", "--optimizer", "lion"],
        "'lion' is not one of 'sgd', 'adam'",
    ),
    "steps": (
        ["run", "--algos", "dpo", "--tasks", "cycle", "--steps", "0"],
        "task.steps = 0: input should be greater than 0",
    ),
    "steps are a word": (["run", "--algos", "dpo", "--steps", "many"], "'many' is not a valid integer"),
    "seeds": ([*RUN[:-2], "--algos", "dpo", "--seeds", "0"], "--seeds 0: expected a count such as 3"),
    "set without value": (
        [*RUN, "--algos", "dpo", "--set", "dpo.beta"],
        "--set dpo.beta: expected ALGORITHM.FIELD=VALUE",
    ),
    "set of another": (
        [*RUN, "--algos", "dpo", "--set", "ipo.tau=1"],
        "ipo is not among the algorithms of this run (dpo)",
    ),
    "no algorithm": (RUN, "--algos is missing"),
    "does not fit": ([*DATA, "singles.jsonl"], "dpo does not fit task singles: needs preference pairs"),
    "plan": (["run", "plan.toml"], "unknown word 'algo'; did you mean 'algos'?"),
    "missing plan": (["run", "missing.toml"], "missing.toml: cannot be read (No such file or directory)"),
    "data and tasks": ([*DATA, "good.jsonl", "--tasks", "cycle"], "--data and --tasks exclude each other"),
    "world lacks an action": (
        [*DATA, "good.jsonl", "--world", "world.json"],
        "lacks the completion 'b' of the data",
    ),
    "world without data": ([*RUN, "--algos", "dpo", "--world", "world.json"], "--world goes with --data"),
    "no rows": ([*DATA, "good.jsonl", "--rows", "0"], "task.rows = 0: input should be greater than 0"),
    "fewer than no rows": (
        [*DATA, "good.jsonl", "--rows", "-3"],
        "task.rows = -3: input should be greater than 0",
    ),
    "rows are a word": ([*DATA, "good.jsonl", "--rows", "few"], "'few' is not a valid integer"),
    "rows of a setting": (
        [*DATA, "good.jsonl", "--set", "task.rows=0"],
        "task.rows = 0: input should be greater than 0",
    ),
    "rows of a world": ([*RUN, "--algos", "dpo", "--rows", "5"], "task deterministic makes its own rows"),
    "held-out share": ([*DATA, "good.jsonl", "--heldout", "1"], "heldout"),
    "model is a file": (
        ["run", "--algos", "dpo", "--data", "good.jsonl", "--model", "./a-file"],
        "is not a directory",
    ),
    "noise": (
        [*RUN, "--algos", "dpo", "--label-noise", "0.5"],
        "task.label_noise = 0.5: input should be less than 0.5",
    ),
    "no processes": (
        [*TINY, "--gpus-per-cell", "0"],
        "--gpus-per-cell 0: expected a whole number of processes, 1 or more",
    ),
    "processes are a word": ([*TINY, "--gpus-per-cell", "two"], "'two' is not a valid integer"),
    "processes of a table": (
        [*RUN, "--algos", "dpo", "--device", "cpu", "--gpus-per-cell", "2"],
        "it is for language models",
    ),
    "processes without rows": (
        [*TINY, "--batch-size", "2", "--gpus-per-cell", "3"],
        "have 2 rows, not one for each process",
    ),
    "processes of an ensemble": (
        [*TINY, "--set", "task.ensemble=2", "--gpus-per-cell", "2"],
        "not with task.ensemble=2",
    ),
    "show nothing": (["show", "missing"], "missing: not a run directory"),
    "status of a file": (["status", "a-file"], "a-file: not a run directory"),
}


def refused(done: Any, message: str) -> None:
    assert done.code == 2, done.err
    assert done.out == ""
    assert len(done.lines) == 1, done.err
    assert done.lines[0].startswith("xpo-bench: ")
    assert message in done.lines[0]
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("words", "message"), PROMISED.values(), ids=PROMISED)
def test_promised_refusals(warm: Command, tmp_path: Path, words: list[str], message: str) -> None:
    refused(warm(*words), message)
    assert not (tmp_path / "results").exists()


def test_a_refusal_of_a_process_of_its_own(xpo: Command) -> None:
    refused(xpo(*PROMISED["unknown hyperparameter"][0]), PROMISED["unknown hyperparameter"][1])


@pytest.mark.parametrize(("words", "message"), OTHERS.values(), ids=OTHERS)
def test_other_refusals(warm: Command, tmp_path: Path, words: list[str], message: str) -> None:
    refused(warm(*words), message)
    assert not (tmp_path / "results").exists()


def test_names_with_line_breaks_and_escapes_stay_on_one_line(warm: Command) -> None:
    done = warm(*DATA, "evil\n\x1b[31mname.jsonl")
    refused(done, "no such file")
    assert "\x1b" not in done.err


def test_debug_shows_the_traceback(warm: Command) -> None:
    done = warm("--debug", *RUN, "--algos", "dpoo")
    assert done.code == 2
    assert done.lines[0].startswith("Traceback")
    assert done.lines[-1].startswith("xpo-bench: unknown algorithm 'dpoo'")


def test_a_task_that_cannot_be_reached_is_said_and_is_no_success(warm: Command) -> None:
    done = warm("run", "--algos", "dpo", "--tasks", "ukp", "--steps", "5", "--seeds", "1")
    assert done.code == 1
    assert "ukp" in done.err
    assert "XPO_BENCH_DATA" in done.err
    assert "Traceback" not in done.err
    both = warm(
        "run", "--algos", "dpo", "--tasks", "ukp,deterministic", "--steps", "5", "--seeds", "1", "--json"
    )
    assert both.code == 1
    assert [cell["status"] for cell in both.json["cells"]] == ["ok"]
    assert both.json["unreachable"][0]["task"] == "ukp"
