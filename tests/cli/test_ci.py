"""The workflow of docs/ci.md: makes its baseline from nothing, stays green, and goes red when it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import Host, Job

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
WORKFLOW = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0])
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["compare"]["steps"]
(USED,) = (step for step in STEPS if step.get("id") == "xpo-bench")
BASELINE = ".github/xpo-bench.json"
SMALL = "--tasks bandit,one_pair --steps 100"

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from xpo_bench import Algorithm, Step, hookimpl


@dataclass(frozen=True)
class MyAlgorithm(Algorithm):
    name: ClassVar[str] = "my-algorithm"
    beta: float = {beta}

    def loss(self, step: Step):
        chosen, rejected = step.log_ratio("chosen"), step.log_ratio("rejected")
        return {loss}


@hookimpl
def xpo_algorithms():
    return [MyAlgorithm]
"""
DPO = "-F.logsigmoid(self.beta * (chosen - rejected))"


def plugin(beta: float = 0.1, loss: str = DPO) -> str:
    return PLUGIN.format(beta=beta, loss=loss)


class Repository:
    """A repository on a host of workflows, with a plugin that `packages` would have installed."""

    def __init__(self, folder: Path, installed: Path, variables: Callable[..., dict[str, str]]) -> None:
        self.folder, self.installed, self.variables = folder, installed, variables
        self.workspace, self.site = folder / "work", folder / "site"

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.workspace, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def start(self) -> None:
        """An empty repository with a remote to push to."""
        self.workspace.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", "--bare", str(self.folder / "remote")], check=True, timeout=60)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(self.folder / "remote"))
        self.git("config", "push.autoSetupRemote", "true")
        info = self.site / "my_algorithm-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-algorithm\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text("[xpo_bench]\nmy-algorithm = my_algorithm\n", "utf-8")

    def run(self, source: str, event: str = "pull_request", **inputs: str) -> Job:
        """Run the documented workflow, on fewer and shorter cells; nothing else of it is changed."""
        (self.site / "my_algorithm.py").write_text(source, "utf-8")
        with_ = USED["with"] | {"options": SMALL} | {k.replace("_", "-"): v for k, v in inputs.items()}
        steps = [{**step, "with": with_} if step is USED else step for step in STEPS]
        actions = {USED["uses"].partition("@")[0]: ACTION}
        host = Host(self.workspace, self.folder / "runner", self.installed, self.variables, actions, event)
        return host.run(steps, PYTHONPATH=str(self.site), PYTHONDONTWRITEBYTECODE="1")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The repository after the first push to main, with the job; made once."""
    made: dict[str, tuple[Repository, Job]] = {}

    def push(installed: Path, variables: Callable[..., dict[str, str]]) -> tuple[Repository, Job]:
        if not made:
            repository = Repository(tmp_path_factory.mktemp("ci"), installed, variables)
            repository.start()
            made["it"] = (repository, repository.run(plugin(), "push"))
        return made["it"]

    return push


@pytest.fixture
def repository(
    first: Any, warm_script: Path, variables: Callable[..., dict[str, str]], tmp_path: Path
) -> Repository:
    """A copy of the repository after the first push."""
    pushed, _ = first(warm_script, variables)
    copy = Repository(tmp_path / "ci", warm_script, variables)
    shutil.copytree(pushed.folder, copy.folder)
    return copy


def test_the_first_push_makes_and_commits_the_baseline(
    first: Any, warm_script: Path, variables: Callable[..., dict[str, str]]
) -> None:
    repository, job = first(warm_script, variables)
    assert job.green, job.log
    assert job.outputs["xpo-bench"] == {"verdict": "pass", "baseline": "created"}
    assert f"::warning::{BASELINE}: there was no such baseline" in job.log
    assert f"There was no baseline: this run became `{BASELINE}`." in job.summary
    assert "# xpo-bench compare: pass" in job.summary
    assert repository.git("ls-tree", "-r", "--name-only", "origin/main").split() == [BASELINE]
    assert job.pip == [
        "-m pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
        "-m pip install torch==2.13.0 xpo-bench my-algorithm",
    ]
    used = [name.partition("@")[0] for name in job.uses]
    assert used == ["actions/checkout", "actions/setup-python", "actions/cache", "actions/upload-artifact"]


def test_the_pinned_torch_is_the_tested_one() -> None:
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    assert f"torch=={ACTION['inputs']['torch']['default']}" in pinned.splitlines()


def test_the_same_again_is_green_and_commits_nothing(repository: Repository) -> None:
    before = repository.git("rev-parse", "HEAD")
    job = repository.run(plugin(), "push")
    assert job.green, job.log
    assert job.outputs["xpo-bench"] == {"verdict": "pass", "baseline": "found"}
    assert repository.git("rev-parse", "HEAD") == before


PLANTED = {
    "a regression of the loss": (
        {"source": plugin(loss="-chosen")},
        "regression",
        "my-algorithm on bandit | REGRESSION",
    ),
    "a changed default": (
        {"source": plugin(beta=3.0)},
        "regression",
        "my-algorithm on bandit | REGRESSION",
    ),
    "a missing algorithm": (
        {"source": plugin(), "algos": "dpo"},
        "undecided",
        "the algorithm is missing from the new run",
    ),
    "a lost task": (
        {"source": plugin(), "options": SMALL.replace(",one_pair", "")},
        "undecided",
        "the task is missing from the new run",
    ),
    "cells that fail": (
        {"source": plugin(loss="chosen.no_such_thing")},
        "regression",
        "ok → failed at seed 0",
    ),
}


@pytest.mark.parametrize(("change", "verdict", "told"), PLANTED.values(), ids=PLANTED)
def test_planted_changes_turn_the_job_red(
    repository: Repository, change: dict[str, str], verdict: str, told: str
) -> None:
    job = repository.run(**change)
    assert not job.green
    assert job.outputs["xpo-bench"] == {"verdict": verdict, "baseline": "found"}
    summary = job.summary.replace("\\", "")
    assert told in summary
    assert ("config.beta 0.1 → 3.0: " in summary) == ("beta: float = 3.0" in change["source"])
    assert "::error::" in job.log
    assert job.uses[-1].startswith("actions/upload-artifact")  # the table is kept all the same
