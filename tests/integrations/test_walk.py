"""The commands of docs/trainers.md, as they stand there, and what the page says that they show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import environment
from trl import DPOConfig, DPOTrainer
from trl_words import quiet_options

from xpo_bench.integrations.transformers import PreferenceDiagnostics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trainers.md").read_text()
SHARED = ROOT.parent / "shared"
TRL = "import sys; from trl.cli import main; sys.exit(main())"
"""The command `trl`, of the interpreter that runs the tests."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory beside which the shared data lie, with `trl`, `python` and `xpo-bench` on its path."""
    if not SHARED.is_dir():
        pytest.skip(f"the data of the walk are not at {SHARED}")
    whole = tmp_path_factory.mktemp("walk")
    (whole / "shared").symlink_to(SHARED.resolve())
    commands = whole / "bin"
    commands.mkdir()
    scripts = {
        "trl": f"-c '{TRL}'",
        "python": "",
        "xpo-bench": "-m xpo_bench",
    }
    for name, words in scripts.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (commands / name).chmod(0o755)
    (whole / "here").mkdir()
    return whole / "here"


def finals(folder: Path) -> dict[str, dict[str, Any]]:
    """The last metrics of every policy that was evaluated, by name."""
    records = [json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")]
    return {record["algorithm"]["name"]: record["metrics"] for record in records}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_command_of_the_walk(place: Path) -> None:
    env = environment({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    env["PATH"] = f"{place.parent / 'bin'}:{env['PATH']}"
    said = ""
    for block in blocks("bash"):
        done = subprocess.run(
            ["bash", "-e", "-c", block], cwd=place, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said += done.stdout
    found = finals(place / "results" / "walk")
    assert set(found) == {"dpo", "ipo"}
    for metrics in found.values():
        assert {"collapsed", "rejected_drift", "displacement", "kl", "token_entropy"} <= set(metrics)
    # the page has .4 and −60 against 0 and −7
    assert found["dpo"]["collapsed"] > 0.2
    assert found["dpo"]["rejected_drift"] < -25
    assert found["ipo"]["collapsed"] == 0
    assert found["ipo"]["rejected_drift"] > -20
    assert "'token_entropy'" in said  # the callback's lines, on the console
    assert "dpo" in (place / "walk.md").read_text()
    assert (place / "walk.html").stat().st_size > 10_000


def test_the_walk_names_what_it_needs() -> None:
    commands = "\n".join(blocks("bash"))
    for words in (
        "trl dpo",
        "xpo-bench evaluate",
        "xpo-bench show",
        "xpo-bench report",
        "python train_ipo.py",
    ):
        assert words in commands


def test_the_python_of_the_page_runs(place: Path) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"prompt": ["a b"] * 4, "chosen": [" c"] * 4, "rejected": [" d e"] * 4})
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for block in blocks("python"):
            exec(compile(block, "docs/trainers.md", "exec"), names)
        options = DPOConfig(**quiet_options(place / "out", max_steps=2))
        made = names["trainer"](rows, options)
        made.add_callback(names["callback"])
        made.train()
    assert isinstance(made, DPOTrainer)
    assert isinstance(names["callback"], PreferenceDiagnostics)
    assert made.algorithm.beta == 0.2
    assert "kl" in {name for entry in made.state.log_history for name in entry}
