"""`xpo-bench show`: the answer first, and the words that choose what of a run is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xpo_bench

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ipo as a user would try it, and dpo at a learning rate at which it stands still."""
    out = tmp_path_factory.mktemp("show") / "r"
    words: dict[str, Any] = {"seeds": 3, "steps": 60, "out": out}
    xpo_bench.run("dpo,ipo,sft", tasks="bandit,deterministic", **words)
    xpo_bench.run("cdpo", tasks="bandit", set={"cdpo.train.lr": 1e-9}, **words)
    return out


def table(text: str, title: str) -> list[list[str]]:
    """The words of the rows of the first table under a title that begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rule = next(i for i in range(start, len(lines)) if lines[i].startswith("──"))
    end = next(i for i in range(rule, len(lines)) if not lines[i].strip())
    return [line.split() for line in lines[rule + 1 : end]]


def test_the_answer_comes_first(warm: Command, directory: Path) -> None:
    done = warm("show", directory)
    assert done.code == 0, done.err
    assert done.out.startswith("Which algorithm? 2 tasks, 3 seeds, within 1 nat of KL")
    words = " ".join(done.out.split())
    assert "bandit (known reward): best is dpo" in words
    assert "bandit: cdpo has not moved (KL " in words
    assert words.index("cdpo has not moved") < words.index("Against dpo") < words.index("bandit: adam")
    assert "Over 2 tasks" not in words  # certain preferences rank nobody
    for row in table(done.out, "bandit: adam"):
        assert row[0] != "cdpo" or "*" not in " ".join(row)


def test_words_that_choose(warm: Command, directory: Path) -> None:
    chosen = ("--algos", "dpo,s*", "--tasks", "band*", "--columns", "gold_reward,kl", "--sort", "kl")
    done = warm("show", directory, *chosen)
    assert done.code == 0, done.err
    assert "ipo" not in done.out.split("Algorithms as they were run")[0]
    assert "deterministic" not in done.out
    rows = table(done.out, "bandit: adam")
    assert [row[0] for row in rows] == ["sft", "dpo"]  # the smaller KL first
    assert all(len(row) == 6 for row in rows)  # name, lr, runs, ok and the two metrics
    by_name = table(warm("show", directory, "--sort", "name").out, "bandit: adam")
    assert [row[0] for row in by_name] == ["cdpo", "dpo", "ipo", "sft"]
    best_first = table(warm("show", directory).out, "bandit: adam")
    assert [row[0] for row in best_first] == ["dpo", "ipo", "sft", "cdpo"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algos", "dppo"], "--algos: unknown name in this run 'dppo'; did you mean 'dpo'?"),
        (["--tasks", "bandits"], "--tasks: unknown name in this run 'bandits'; did you mean 'bandit'?"),
        (["--columns", "kll"], "--columns: unknown metric of this run 'kll'; did you mean 'kl'?"),
        (["--sort", "kll"], "--sort: unknown metric of this run 'kll'; did you mean 'kl'?"),
        (["--baseline", "kto"], "unknown algorithm of this run 'kto'"),
        (["--algos", "ipo", "--baseline", "dpo"], "unknown algorithm of this run 'dpo'"),
        (["--metric", "kl"], "--metric kl: has no preferred direction, or is unknown"),
        (["--algos", "ipo", "--metric", "nonsense"], "--metric nonsense: has no preferred direction"),
    ],
)
def test_names_that_fit_nothing_are_one_line(
    warm: Command, directory: Path, words: list[str], message: str
) -> None:
    done = warm("show", directory, *words)
    assert (done.code, done.out, len(done.lines)) == (2, "", 1), done.err
    assert done.lines[0].startswith(f"xpo-bench: {message}")


def test_against_another_baseline_by_another_metric(warm: Command, directory: Path) -> None:
    shown = warm("show", directory, "--baseline", "sft", "--metric", "gold_reward", "--json").json
    assert {row["metric"] for row in shown["against"]} == {"gold_reward"}
    rows = {row["label"]: row for row in shown["against"]}
    assert set(rows) == {"dpo", "ipo"}  # cdpo has not moved, and deterministic knows no reward
    assert rows["dpo"]["verdict"] == "better"
    assert rows["dpo"]["p_holm"] >= rows["dpo"]["p"]
    low, high = rows["dpo"]["ci95"]
    assert 0 < low < rows["dpo"]["difference"] < high
    text = warm("report", directory, "--baseline", "sft", "--md", "-").out
    assert "## Against sft" in text
    assert "## Against dpo" in warm("report", directory, "--md", "-").out
    assert warm("report", directory, "--baseline", "kto", "--md", "-").code == 2


def test_how_many_seeds(warm: Command, directory: Path) -> None:
    plain, asked = warm("show", directory), warm("show", directory, "--plan-seeds")
    assert "How many seeds" not in plain.out
    assert "How many seeds" in asked.out
    found = warm("show", directory, "--plan-seeds", "--json").json["seeds_needed"]
    assert [(row["label"], row["against"]) for row in found] == [("ipo", "dpo"), ("sft", "dpo")]
    assert all(row["seeds"] >= 2 for row in found)
    assert "seeds_needed" not in warm("show", directory, "--json").json
    again = ("run", "--algos", "dpo,ipo,sft", "--tasks", "bandit", "--steps", "60", "--seeds", "3")
    done = warm(*again, "--out", directory, "--plan-seeds", "--quiet")
    assert done.code == 0, done.err
    assert "How many seeds" in done.out


def test_verdicts_are_data(warm: Command, directory: Path) -> None:
    by_task = {v["task"]: v for v in warm("show", directory, "--json").json["verdicts"]}
    bandit, certain = by_task["bandit"], by_task["deterministic"]
    assert (bandit["metric"], certain["metric"]) == ("attained_1", None)
    said = {row["label"]: (row["said"], row["ranks"]) for row in bandit["rows"]}
    assert said["dpo"][0] == "best"
    assert said["cdpo"] == ("not moved", None)
    assert {row["state"] for row in certain["rows"]} <= {"stops", "keeps falling", "collapses", "saturates"}
    assert bandit["comparisons"] == 3
