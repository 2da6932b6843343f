"""Runs from the command line: closed forms, JSON, resuming, tables, interruption."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import SMALL

Command = Callable[..., Any]


def jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"prompt": "x", "chosen": a, "rejected": b}) + "\n" for a, b in rows), "utf-8"
    )
    return path


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every record and curve."""
    files = [*folder.glob("cells/*.json"), *folder.glob("curves/*.parquet")]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# --------------------------------------------------------------------------- closed forms


def test_three_rows_ipo_on_its_closed_form_and_dpo_at_certainty(warm: Command, tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [("a", "b"), ("b", "c"), ("a", "c")])
    done = warm(
        "run", "--algos", "dpo,ipo", "--data", "d.jsonl", "--model", "tabular", "--seeds", "1", "--json",
        "--set", "ipo.tau=.1,.5,1", "--set", "dpo.beta=.05,.1,.5",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1  # one document and nothing else
    seen = set()
    for cell in done.json["cells"]:
        policy = cell["final_policy"]["x"]
        if cell["algorithm"]["name"] == "dpo":
            assert policy["a"] > 0.999
            seen.add(cell["algorithm"]["config"]["beta"])
        else:
            tau = cell["algorithm"]["config"]["tau"]
            # least squares of h_a − h_b, h_b − h_c, h_a − h_c at 1/(2τ): neighbours are 1/(3τ) apart
            weights = [math.exp(2 / (3 * tau)), math.exp(1 / (3 * tau)), 1.0]
            assert [policy[y] for y in "abc"] == pytest.approx([w / sum(weights) for w in weights], abs=1e-3)
            seen.add(tau)
    assert seen == {0.05, 0.1, 0.5, 1.0}
    assert len(done.json["cells"]) == 6


REFERENCE = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
WINS = {"a": 1, "b": 2, "c": 3, "d": 4}
"""exp(reward): the preference of one action over another is a ratio of small numbers, so that rows hold it
exactly.
"""


@pytest.fixture
def four_actions(tmp_path: Path) -> list[str]:
    """Data whose frequencies are the Bradley–Terry probabilities of a known reward, and its options."""
    rows = [(i, j) for i in WINS for j in WINS if i != j for _ in range(WINS[i])]
    jsonl(tmp_path / "four.jsonl", rows)
    world = {"x": {"reference": REFERENCE, "reward": {y: math.log(w) for y, w in WINS.items()}}}
    (tmp_path / "world.json").write_text(json.dumps(world), "utf-8")
    return [
        "run",
        "--data",
        "four.jsonl",
        "--world",
        "world.json",
        "--model",
        "tabular",
        "--seeds",
        "1",
        "--json",
    ]


def value(policy: dict[str, float], beta: float) -> tuple[float, float]:
    """(KL, J) of a policy in the world of four actions."""
    kl = sum(p * math.log(p / REFERENCE[y]) for y, p in policy.items())
    return kl, sum(p * math.log(WINS[y]) for y, p in policy.items()) - beta * kl


def optimum(beta: float) -> dict[str, float]:
    weights = {y: REFERENCE[y] * WINS[y] ** (1 / beta) for y in WINS}
    return {y: w / sum(weights.values()) for y, w in weights.items()}


def test_four_actions_dpo_reaches_the_optimum_and_metrics_are_exact(
    warm: Command, four_actions: list[str]
) -> None:
    done = warm(*four_actions, "--algos", "dpo,ipo", "--set", "dpo.beta=0.5,1,2")
    assert done.code == 0, done.err
    cells = [c for c in done.json["cells"] if c["algorithm"]["name"] == "dpo"]
    assert len(cells) == 3
    for cell in cells:
        beta, policy, metrics = (
            cell["algorithm"]["config"]["beta"],
            cell["final_policy"]["x"],
            cell["metrics"],
        )
        best = optimum(beta)
        assert policy == pytest.approx(best, abs=1e-3)
        assert metrics["kl"] == pytest.approx(value(best, beta)[0], abs=1e-3)
        assert metrics["regret"] == pytest.approx(0, abs=1e-3)
        assert metrics["frontier_gap"] == pytest.approx(0, abs=1e-3)
    (other,) = [c for c in done.json["cells"] if c["algorithm"]["name"] == "ipo"]
    assert "regret" not in other["metrics"]  # τ is no KL strength


def test_metrics_on_the_way_are_exact_too(warm: Command, four_actions: list[str]) -> None:
    done = warm(*four_actions, "--algos", "dpo", "--set", "dpo.beta=0.5,2", "--steps", "20")
    for cell in done.json["cells"]:
        beta, policy, metrics = (
            cell["algorithm"]["config"]["beta"],
            cell["final_policy"]["x"],
            cell["metrics"],
        )
        kl, objective = value(policy, beta)
        assert metrics["kl"] == pytest.approx(kl, abs=1e-9)
        assert metrics["kl_forward"] == pytest.approx(
            sum(q * math.log(q / policy[y]) for y, q in REFERENCE.items()), abs=1e-9
        )
        assert metrics["regret"] == pytest.approx(value(optimum(beta), beta)[1] - objective, abs=1e-9)
        assert metrics["regret"] > 1e-3
        assert metrics["gold_reward"] == pytest.approx(objective + beta * kl, abs=1e-9)


# --------------------------------------------------------------------------- output


def test_the_same_command_again_only_prints_the_tables(warm: Command, tmp_path: Path) -> None:
    words = [
        "run",
        "--algos",
        "dpo,ipo,kto",
        "--tasks",
        "deterministic,bandit",
        "--steps",
        "100",
        "--seeds",
        "2",
    ]
    first = warm(*words)
    assert first.code == 0, first.err
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert len(run.name) == 12
    before = snapshot(run)
    assert len(before) == 2 * 12
    again = warm(*words)
    assert again.code == 0
    assert again.out == first.out
    assert snapshot(run) == before
    assert "12 already there" in again.err
    shown = warm("show", run)
    assert shown.code == 0
    assert shown.out.startswith(first.out.rstrip())  # and the courses after it
    for name in ("dpo", "ipo", "kto", "bandit", "deterministic", "Which algorithm?"):
        assert name in shown.out
    document = warm("show", run, "--json").json
    assert {cell["key"] for cell in document["cells"]} == {path.stem for path in run.glob("cells/*.json")}
    assert len(document["summary"]) == 6
    assert warm("status", run).code == 0
    assert warm("status", run, "--json").json == {
        "run": str(run),
        "planned": 12,
        "finished": 12,
        "status": {"ok": 12},
    }


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal(warm: Command, tmp_path: Path, width: int) -> None:
    done = warm(
        "run", "--algos", "dpo,ipo", "--tasks", "bandit", "--steps", "20", "--seeds", "2", COLUMNS=str(width)
    )
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= width
    assert "\x1b" not in done.out + done.err  # not a terminal


def test_json_is_one_document_and_progress_goes_elsewhere(warm: Command) -> None:
    words = ["run", "--algos", "dpo", "--tasks", "deterministic", "--steps", "10", "--seeds", "42,", "--json"]
    done = warm(*words)
    assert set(done.json) >= {"schema", "run", "cells", "summary"}
    assert done.json["schema"] == 1
    assert [cell["seed"] for cell in done.json["cells"]] == [42]
    assert done.out.endswith("\n")
    assert done.out.count("\n") == 1
    assert "1 cell" in done.err
    quiet = warm(*words, "--quiet", "--fresh")
    assert quiet.err == ""
    assert quiet.json["cells"][0]["final_policy"] == done.json["cells"][0]["final_policy"]


def test_a_failed_cell_is_exit_status_1_and_no_number(
    warm: Command, distribution: Callable[..., Path], tmp_path: Path
) -> None:
    source = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom xpo_bench "
        "import Algorithm, hookimpl\n\n"
        "@dataclass(frozen=True)\nclass Bad(Algorithm):\n    name: ClassVar[str] = 'bad'\n\n"
        "    def loss(self, step):\n        return step.log_ratio('chosen').mean()\n\n"
        "@hookimpl\ndef xpo_algorithms():\n    return [Bad]\n"
    )
    site = str(distribution("bad-losses", {"bad": source}, version="4.2"))
    words = [
        "run",
        "--algos",
        "dpo,bad",
        "--tasks",
        "deterministic",
        "--steps",
        "10",
        "--seeds",
        "2",
        "--out",
        "r",
    ]
    done = warm(*words, PYTHONPATH=site)
    assert done.code == 1
    assert (
        "bad on deterministic, seed 0: failed: plugin bad (bad-losses 4.2): bad: loss() returned shape ()"
        in done.err
    )
    assert "Traceback" not in done.err
    counts = warm("status", "r", "--json").json
    assert counts["status"] == {"failed": 2, "ok": 2}
    shown = warm("show", "r")  # without the plugin: tables need records only
    assert shown.code == 0
    assert "bad" in shown.out
    again = warm(*words, "--json", PYTHONPATH=site)
    assert [c["timing"].get("steps") for c in again.json["cells"]] == [10, 10, None, None]


def test_a_plan_file_with_flags_on_top(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'algos = "dpo,ipo"\nsteps = 30\nseeds = 2\nexperiment = "mine"\nset = { "dpo.beta" = [0.1, 0.5] }\n'
        '[[runs]]\ntasks = "deterministic"\n[[runs]]\ntasks = "cycle"\nalgos = "dpo"\n',
        "utf-8",
    )
    done = warm("run", "plan.toml", "--steps", "10", "--json")
    assert done.code == 0, done.err
    cells = done.json["cells"]
    assert len(cells) == 2 * 2 + 2 + 2 * 2
    assert {c["task"]["budget"]["steps"] for c in cells} == {10}
    assert {c["experiment"] for c in cells} == {"mine"}
    assert {c["seed"] for c in cells} == {0, 1}


def test_all_says_what_it_leaves_out(warm: Command, tmp_path: Path) -> None:
    rows = [{"prompt": "x", "completion": c, "label": c == "a"} for c in "ab"]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    done = warm("run", "--algos", "all", "--data", "labels.jsonl", "--steps", "10", "--seeds", "1")
    assert done.code == 0, done.err
    assert "kto" in done.out
    assert "needs preference pairs" in " ".join(done.out.split())


def test_bad_rows_are_skipped_and_counted_on_request(warm: Command, tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [("a", "b"), ("c", "c"), ("a", "c")])
    done = warm(
        "run",
        "--algos",
        "dpo",
        "--data",
        "d.jsonl",
        "--on-bad-row",
        "skip",
        "--steps",
        "5",
        "--seeds",
        "1",
        "--json",
    )
    assert done.json["cells"][0]["task"]["data"]["dropped"] == {"chosen equals rejected": 1}


# --------------------------------------------------------------------------- lists and doctor


def test_only_the_first_rows_under_every_word(warm: Command, tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [("a", "b"), ("b", "c"), ("a", "c")])
    (tmp_path / "plan.toml").write_text(
        'algos = "dpo"\ndata = "d.jsonl"\nrows = 2\nsteps = 5\nseeds = 1\n', "utf-8"
    )
    words = [
        "run",
        "--algos",
        "dpo",
        "--data",
        "d.jsonl",
        "--model",
        "tabular",
        "--steps",
        "5",
        "--seeds",
        "1",
        "--json",
    ]
    cells = [
        done.json["cells"][0]
        for done in (
            warm(*words, "--rows", "2"),
            warm(*words, "--set", "task.rows=2"),
            warm("run", "plan.toml", "--model", "tabular", "--json"),
            warm(*words),
            warm(*words, "--rows", "3"),
        )
    ]
    assert [cell["task"]["data"]["rows"] for cell in cells] == [2, 2, 2, 3, 3]
    assert cells[0]["task"]["options"]["rows"] == 2
    assert cells[0]["task"]["data"]["revision"] is None
    assert len({cell["key"] for cell in cells[:3]}) == 1
    assert len({cell["key"] for cell in cells}) == 3, (
        "the limit is part of the key, also where it cuts nothing off"
    )


def test_lists(warm: Command) -> None:
    want = {
        "algos": (
            {"name", "about", "fields", "source", "paper", "plugin", "distribution", "version"},
            {"dpo", "ipo", "kto", "ppo"},
        ),
        "tasks": (
            {"name", "about", "model", "steps", "options", "plugin"},
            {"bandit", "travel", "overfit_pair"},
        ),
        "metrics": ({"name", "unit"}, {"kl", "frontier_gap", "collapsed", "control"}),
        "plugins": ({"name", "distribution", "version", "hooks", "status", "error"}, {"dpo", "bandit"}),
    }
    for what, (fields, names) in want.items():
        done = warm("list", what, "--json")
        assert done.code == 0
        assert done.err == ""
        assert all(fields <= set(row) for row in done.json), what
        assert names <= {row["name"] for row in done.json}
        table = warm("list", what, COLUMNS="80")
        assert table.code == 0
        assert all(name in table.out for name in names)
        assert max(map(len, table.out.splitlines())) <= 80


def test_doctor(warm: Command, tmp_path: Path) -> None:
    done = warm("doctor", "--json")
    assert done.code == 0
    found = {entry["what"]: entry for entry in done.json}
    assert {"python", "packages", "processor", "plugins", "XPO_BENCH_DATA", "results/runs"} <= set(found)
    assert all(entry["status"] in ("fine", "note") for entry in done.json)
    wrong = warm("doctor", XPO_BENCH_DATA=str(tmp_path / "missing"))
    assert wrong.code == 1
    assert "is not a directory" in " ".join(wrong.out.split())


def test_help_of_every_command(warm: Command) -> None:
    for command in ([], ["run"], ["list"], ["show"], ["status"], ["doctor"]):
        done = warm(*command, "--help")
        assert done.code == 0
        assert done.out.startswith("Usage: xpo-bench")
    assert warm("--version").out.startswith("xpo-bench, version ")


def test_one_model_by_two_processes(warm: Command, tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [("yes", "no"), ("sure", "never"), ("fine", "nah")])
    small = ["task.kl_prompts=1", "task.kl_samples=1", "task.max_new_tokens=2"]
    words = [
        "run",
        "--algos",
        "dpo",
        "--data",
        "d.jsonl",
        "--model",
        "tiny",
        "--device",
        "cpu",
        "--seeds",
        "2",
        "--steps",
        "2",
    ]
    words += [
        "--batch-size",
        "3",
        "--gpus-per-cell",
        "2",
        "--out",
        "r",
        *(word for s in small for word in ("--set", s)),
    ]
    done = warm(*words, "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert [(cell["status"], cell["seed"], cell["train"]["processes"]) for cell in done.json["cells"]] == [
        ("ok", 0, 2),
        ("ok", 1, 2),
    ]
    assert "2 cells, 2 already there" in warm(*words).err


# --------------------------------------------------------------------------- interruption


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupted_run_keeps_what_is_finished_and_resumes(
    warm: Command, variables: Callable[..., dict[str, str]], tmp_path: Path, number: int, code: int
) -> None:
    # three groups: the first is done at once, the second takes a while
    words = [
        "run",
        "--algos",
        "dpo",
        "--tasks",
        "deterministic",
        "--seeds",
        "1",
        "--set",
        "task.steps=5,3000,3001",
        "--out",
        "r",
    ]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "xpo-bench"), *words],
        cwd=tmp_path,
        env=variables({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("r/cells/*.json")) and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert err.splitlines()[-1] == "xpo-bench: interrupted; finished cells are kept, the same command resumes"
    assert "Traceback" not in err
    assert warm("status", "r", "--json").json == {
        "run": "r", "planned": 3, "finished": 1, "status": {"ok": 1, "missing": 2}
    }  # fmt: skip
    assert warm("show", "r").code == 0
    kept = snapshot(tmp_path / "r")
    resumed = warm(*words)
    assert resumed.code == 0
    after = snapshot(tmp_path / "r")
    assert len(after) == 6
    assert {name: after[name] for name in kept} == kept


def test_after_a_kill_only_the_cell_that_ran_is_computed_again(
    warm: Command, variables: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    words = [
        "run",
        "--algos",
        "dpo,ipo,sft",
        "--tasks",
        "overfit_pair",
        "--seeds",
        "1",
        "--steps",
        "100",
        "--out",
        "r",
        *SMALL,
    ]
    command = [str(Path(sys.executable).parent / "xpo-bench"), *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=variables({}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("[1/3]"):
            break
    time.sleep(0.3)  # the second cell is under way, which takes seconds
    process.kill()
    process.wait(60)
    kept = snapshot(tmp_path / "r")
    assert len(kept) == 2  # one record and its curve
    resumed = warm(*words)
    assert resumed.code == 0
    assert [line for line in resumed.lines if line.startswith("[")] == [
        "[1/2] ipo on overfit_pair, seed 0: ok",
        "[2/2] sft on overfit_pair, seed 0: ok",
    ]
    after = snapshot(tmp_path / "r")
    assert len(after) == 6
    assert {name: after[name] for name in kept} == kept
