"""The steps of action.yml, one at a time, in bash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparisons import spoil
from workflows import Host, Job

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text("utf-8"))


@pytest.fixture
def step(tmp_path: Path, variables: Callable[..., dict[str, str]], warm_script: Path) -> Callable[..., Job]:
    """Runs one step of the action that is in bash; what the step before it would have put out is given."""

    def run(name: str, status: int = 0, **inputs: str) -> Job:
        (found,) = (s for s in ACTION["runs"]["steps"] if s["name"] == name)
        before = {"id": "run", "run": f'echo status={status} >> "$GITHUB_OUTPUT"'}
        only = {**ACTION, "runs": {"steps": [before, found]}}
        given = {"algos": "dpo"} | {key.replace("_", "-"): value for key, value in inputs.items()}
        host = Host(tmp_path, tmp_path / "runner", warm_script, variables, {"it": only})
        return host.run([{"uses": "it@v1", "id": "it", "with": given}])

    return run


def test_inputs_never_become_part_of_a_script() -> None:
    assert all("${{" not in found.get("run", "") for found in ACTION["runs"]["steps"])


def test_a_branch_is_compared_by_its_interpreter(step: Any, warm_script: Path, tmp_path: Path) -> None:
    # a suite gives way to the tasks that the options name
    base = str(warm_script / "python")
    words = {"seeds": "2", "options": "--tasks one_pair --steps 5", "base_python": base}
    assert step("Run", **words).outputs["run"] == {"status": "0"}
    assert step("Run the base", **words).green
    same = step("Compare", **words)
    assert same.green, same.log
    assert same.outputs["it"] == {"verdict": "pass", "baseline": "branch"}
    assert "# xpo-bench compare: pass" in same.summary
    spoil(tmp_path / "xpo-bench-new", kl=3.0)
    worse = step("Compare", **words)
    assert (worse.green, worse.outputs["it"]["verdict"]) == (False, "regression")


@pytest.fixture
def compared(warm: Any, tmp_path: Path) -> Path:
    """The folder of a job that has run `xpo-bench run`."""
    words = ["--algos", "dpo", "--tasks", "one_pair,deterministic", "--steps", 5, "--seeds", 2, "--quiet"]
    assert warm("run", *words, "--out", "xpo-bench-new").code == 0
    return tmp_path


def test_what_is_missing_is_red_unless_the_job_says_otherwise(step: Any, warm: Any, compared: Path) -> None:
    assert warm("baseline", "xpo-bench-new", "-o", "base.json").code == 0
    sorted((compared / "xpo-bench-new" / "cells").glob("*.json"))[0].unlink()
    red = step("Compare", baseline="base.json")
    assert (red.green, red.outputs["it"]["verdict"]) == (False, "undecided")
    assert "::error::" in red.log
    green = step("Compare", baseline="base.json", fail_on_undecided="false")
    assert (green.green, green.outputs["it"]["verdict"]) == (True, "undecided")
    assert "::warning::" in green.log


def test_a_baseline_is_made_where_it_may_be_and_of_a_whole_run(step: Any, compared: Path) -> None:
    refused = step("Compare", baseline="new/base.json", create_baseline="false")
    assert not refused.green
    assert "new/base.json: there is no such baseline" in refused.log
    failed = step("Compare", status=1, baseline="new/base.json")
    assert not failed.green
    assert "a baseline is made of a run without failures" in failed.log
    assert not (compared / "new").exists()
    made = step("Compare", baseline="new/base.json")
    assert made.green, made.log
    assert made.outputs["it"] == {"verdict": "pass", "baseline": "created"}
    again = step("Compare", status=1, baseline="new/base.json")  # a cell failed, and had failed before
    assert (again.green, again.outputs["it"]) == (False, {"verdict": "pass", "baseline": "found"})
    assert not step("Compare", baseline="xpo-bench-new/run.json").green


def test_another_source_is_told_and_undecided_where_that_is_asked_for(
    step: Any, warm: Any, compared: Path
) -> None:
    assert warm("baseline", "xpo-bench-new", "-o", "base.json").code == 0
    for path in (compared / "xpo-bench-new" / "cells").glob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        record["algorithm"]["source"] = "0" * 24
        path.write_text(json.dumps(record), "utf-8")
    told = step("Compare", baseline="base.json")
    assert told.green, told.log
    assert "Another source than in the base: algorithm dpo" in told.summary
    assert not step("Compare", baseline="base.json", same_source="true").green


def test_an_input_with_shell_in_it_is_a_name(step: Any, tmp_path: Path) -> None:
    done = step("Run", algos="dpo; touch marked; $(touch marked)")
    assert not done.green
    assert "unknown algorithm" in done.log
    assert not (tmp_path / "marked").exists()
