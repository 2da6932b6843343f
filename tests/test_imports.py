"""What is imported when: modules, not seconds; and the floors of the house."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "datasets", "statsmodels", "matplotlib"}

PROBE = """
import contextlib, io, json, sys
{statement}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
COMMAND = """
from xpo_bench.cli import main
for words in {commands!r}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main(words)
        except SystemExit as ended:
            assert ended.code == 0, ended.code
    assert said.getvalue().strip()
"""

Modules = Callable[[str], set[str]]


@pytest.fixture
def modules(variables: Callable[..., dict[str, str]], tmp_path: Path) -> Modules:
    """Top-level modules that a fresh interpreter has imported after a statement."""

    def after(statement: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(statement=statement)],
            env=variables({}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout))

    return after


def test_help_imports_nothing_heavy(modules: Modules) -> None:
    loaded = modules(COMMAND.format(commands=[["--help"], ["run", "--help"], ["--version"]]))
    assert "click" in loaded
    assert not loaded & HEAVY


def test_importing_the_package_imports_nothing_heavy(modules: Modules) -> None:
    loaded = modules("import xpo_bench")
    assert "xpo_bench" in loaded
    assert not loaded & HEAVY


def test_listing_imports_torch_at_most(modules: Modules) -> None:
    loaded = modules(
        COMMAND.format(
            commands=[["list", "algos"], ["list", "algos", "--json"], ["list", "tasks"], ["list", "plugins"]]
        )
    )
    assert "xpo_bench_plugins" in loaded
    assert not loaded & (HEAVY - {"torch"})


def test_counting_records_imports_nothing_heavy(modules: Modules, tmp_path: Path) -> None:
    (tmp_path / "run" / "cells").mkdir(parents=True)
    assert not modules(COMMAND.format(commands=[["status", "run"]])) & HEAVY


def test_the_floors_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(linter), "--config", "pyproject.toml", "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout
