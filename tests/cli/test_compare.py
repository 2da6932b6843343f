"""`xpo-bench compare` and `baseline` as installed commands, and the steps of the action in bash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RUN = ["run", "--algos", "dpo", "--tasks", "one_pair,deterministic", "--steps", 20, "--quiet"]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))


@pytest.fixture
def two(warm: Any, tmp_path: Path) -> Path:
    """Two runs of the same cells."""
    for name in ("a", "b"):
        assert warm(*RUN, "--seeds", 3, "--out", name).code == 0
    return tmp_path


def spoil(run: Path, **metrics: float) -> None:
    """Add to metrics of every record."""
    for number, path in enumerate(sorted((run / "cells").glob("*.json"))):
        record = json.loads(path.read_text("utf-8"))
        for name, value in metrics.items():
            record["metrics"][name] += value * (1 + 0.001 * number)
        path.write_text(json.dumps(record), "utf-8")


def test_two_runs(two: Path, warm: Any) -> None:
    same = warm("compare", "a", "b")
    assert same.code == 0
    assert "every bit the same" in same.out
    assert "Verdict: pass" in same.out
    spoil(two / "b", kl=3.0)
    worse = warm("compare", "a", "b", "--json", "--md", "c.md")
    assert worse.code == 3
    assert worse.json["verdict"] == "regression"
    assert "MOVED" in (two / "c.md").read_text("utf-8")
    assert warm("compare", "b", "b").code == 0
    assert warm("compare", "a", "b", "--margin", "kl=9").code == 0


def test_a_baseline_is_a_side(two: Path, warm: Any) -> None:
    assert warm("baseline", "a", "-o", "base.json").code == 0
    assert warm("compare", "base.json", "b").code == 0
    spoil(two / "b", chosen_logp=-5.0)
    assert warm("compare", "base.json", "b", "--md", "-").code == 3


def test_cells_that_are_missing_or_cut_are_named(two: Path, warm: Any) -> None:
    first, second, *_ = sorted((two / "b" / "cells").glob("*.json"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:99])
    found = warm("compare", "a", "b")
    assert found.code == 4
    assert "missing from the new run" in " ".join(found.out.split())
    assert f"left out: b/cells/{second.name}: incomplete or corrupt" in found.err


REFUSALS = {
    "nowhere": (
        ["compare", "a", "nowhere"],
        "nowhere: cannot be read (No such file or directory); name a run directory",
    ),
    "text": (["compare", "text", "a"], "text: not JSON"),
    "other": (
        ["compare", "other.json", "a"],
        "other.json: no baseline; `xpo-bench baseline RUN -o FILE` writes one",
    ),
    "newer": (["compare", "newer.json", "a"], "newer.json: a baseline of schema 9; this version reads 1"),
    "half": (["compare", "half.json", "a"], "half.json: an incomplete or corrupt baseline"),
    "deep": (["compare", "deep.json", "a"], "deep.json: not JSON"),
    "margin": (["compare", "a", "a", "--margin", "kll=1"], "unknown metric 'kll'; did you mean 'kl'?"),
    "pairs": (["compare", "a", "a", "--pairs", "8"], "--pairs: goes with --ab"),
    "margin of ab": (["compare", "--ab", "a", "a", "--margin", "kl=1"], "--margin: not with --ab"),
    "two on stdout": (["compare", "a", "a", "--json", "--md", "-"], "both write to stdout"),
    "no directory": (["baseline", "a", "-o", "no/such/f.json"], "--out no/such/f.json: cannot be written"),
    "no run": (["baseline", "nowhere", "-o", "f.json"], "nowhere: cannot be read"),
}


@pytest.mark.parametrize(("words", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(warm: Any, tmp_path: Path, words: list[str], message: str) -> None:
    assert (
        warm(
            "run",
            "--algos",
            "dpo",
            "--tasks",
            "one_pair",
            "--seeds",
            1,
            "--steps",
            2,
            "--quiet",
            "--out",
            "a",
        ).code
        == 0
    )
    good = {"kind": "xpo-bench baseline", "schema": 1, "records": [], "curves": {}}
    (tmp_path / "text").write_text("hello", "utf-8")
    (tmp_path / "other.json").write_text("{}", "utf-8")
    (tmp_path / "newer.json").write_text(json.dumps(good | {"schema": 9}), "utf-8")
    (tmp_path / "half.json").write_text(json.dumps(good | {"records": [{"key": 1}]}), "utf-8")
    (tmp_path / "deep.json").write_text("[" * 10**5, "utf-8")
    found = warm(*words)
    assert found.code == 2, found.err
    assert len(found.lines) == 1
    assert message in found.err


def test_the_committed_baseline_is_still_met(xpo: Any) -> None:
    """On any machine: equal bits or equivalent, and never worse. Its language model is left out here."""
    words = [
        "run",
        "--algos",
        "dpo,ipo,cdpo,kto",
        "--tasks",
        "bandit,deterministic,travel",
        "--seeds",
        5,
        "--steps",
        200,
    ]
    assert xpo(*words, "--device", "cpu", "--out", "new").code == 0
    found = xpo("compare", ROOT / "results" / "baselines" / "quick-cpu.json", "new", "--json")
    here, rest = (
        [c for c in found.json["cells"] if (c["task"] == "overfit_pair") == left] for left in (False, True)
    )
    assert len(here) == 12
    assert {cell["verdict"] for cell in here} <= {"same", "equivalent"}
    assert {reason for cell in rest for reason in cell["reasons"]} == {"missing from the new run"}
    assert found.code == 4


@pytest.fixture
def step(
    tmp_path: Path, variables: Callable[..., dict[str, str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a step of the action as its host does: in bash, inputs by the environment, defaults filled in."""
    defaults = {name: value.get("default", "") for name, value in ACTION["inputs"].items()}

    def run(name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        (found,) = (s for s in ACTION["runs"]["steps"] if s["name"] == name)
        given = defaults | {key.replace("_", "-"): value for key, value in inputs.items()}
        env = {
            key: given[value.removeprefix("${{ inputs.").removesuffix(" }}")]
            for key, value in found["env"].items()
        }
        env |= {
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
        }
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        script = tmp_path / "step.sh"
        script.write_text(found["run"], "utf-8")
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=variables(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def test_inputs_never_become_part_of_a_script() -> None:
    assert all("${{" not in found["run"] for found in ACTION["runs"]["steps"])


def test_the_steps_of_the_action(step: Any, tmp_path: Path) -> None:
    # a suite gives way to the tasks that the options name
    words = {"algos": "dpo", "seeds": "2", "options": "--tasks one_pair --steps 5"}
    assert step("Run", **words).returncode == 0
    assert step("Run the base", **words).returncode == 2  # nothing to compare with
    assert step("Run the base", **words, base_python=sys.executable).returncode == 0
    same = step("Compare")
    assert same.returncode == 0, same.stderr
    assert "# xpo-bench compare: pass" in (tmp_path / "summary.md").read_text("utf-8")
    assert (tmp_path / "output").read_text("utf-8").splitlines()[-1] == "verdict=pass"
    spoil(tmp_path / "xpo-bench-new", kl=3.0)
    assert step("Compare").returncode == 3
    sorted((tmp_path / "xpo-bench-new" / "cells").glob("*.json"))[0].unlink()
    (last,) = (tmp_path / "xpo-bench-new" / "cells").glob("*.json")
    last.write_bytes((tmp_path / "xpo-bench-base" / "cells" / last.name).read_bytes())
    undecided = step("Compare")
    assert undecided.returncode == 0
    assert "::warning::" in undecided.stdout
    assert step("Compare", fail_on_undecided="true").returncode == 4
    assert step("Compare", baseline="nowhere").returncode == 2


def test_an_input_with_shell_in_it_is_a_name(step: Any, tmp_path: Path) -> None:
    done = step("Run", algos="dpo; touch marked; $(touch marked)")
    assert done.returncode == 2
    assert "unknown algorithm" in done.stderr
    assert not (tmp_path / "marked").exists()
