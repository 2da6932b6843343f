"""The worked third-party packages: each is built, installed beside the suite's wheel, tested and run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "aot": ["--algos", "dpo,aot", "--tasks", "bandit,deterministic", "--set", "aot.pairing=unpaired,paired"],
    "beta_dpo": [
        "--algos",
        "dpo,beta-dpo",
        "--tasks",
        "bandit",
        "--batch-size",
        "32",
        "--set",
        "beta-dpo.alpha=0,0.6",
    ],
    "tdpo": ["--algos", "dpo,tdpo1,tdpo2", "--tasks", "bandit,tokens"],
    "csv_task": ["--algos", "dpo,ipo", "--tasks", "tea"],
}


def test_every_example_is_here() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if (path / "pyproject.toml").is_file()) == sorted(
        COMMANDS
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_installed_tested_and_run(fresh: Any, tmp_path: Path, name: str) -> None:
    project = tmp_path / name
    shutil.copytree(EXAMPLES / name, project, ignore=shutil.ignore_patterns("__pycache__", "dist"))
    fresh.install(project)
    assert " passed" in fresh(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests")
    )
    words = ["run", *COMMANDS[name], "--steps", "40", "--seeds", "1", "--out", str(tmp_path / "run")]
    shown = fresh("xpo-bench", *words)
    assert "Not ok" not in shown
    assert COMMANDS[name][3].split(",")[0] in shown
