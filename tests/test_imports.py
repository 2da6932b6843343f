"""What is imported when, in modules and not in seconds; the floors of the house, and no circle anywhere."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from commands import Command

ROOT = Path(__file__).parents[1]
PACKAGES = ("xpo_bench", "xpo_bench_plugins")
CLIENT = "xpo_bench.compare.speed.worker"  # run by its path, with whatever release another interpreter has
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
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as ended:
            assert ended.code == 0, said.getvalue()
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


def test_listing_imports_nothing_heavy(modules: Modules) -> None:
    lists = ("algos", "tasks", "metrics", "trackers", "plugins")
    loaded = modules(
        COMMAND.format(commands=[["list", what, *more] for what in lists for more in ([], ["--json"])])
    )
    assert "xpo_bench_plugins" in loaded
    assert not loaded & HEAVY


def test_a_plugin_that_imports_torch_is_listed(modules: Modules, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import torch\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from xpo_bench import Algorithm, hookimpl\n\n@dataclass(frozen=True)\nclass Heavy(Algorithm):\n"
        "    name: ClassVar[str] = 'heavy'\n    def loss(self, step):\n        return torch.zeros(1)\n\n"
        "@hookimpl\ndef xpo_algorithms():\n    return [Heavy]\n"
    )
    folder = tmp_path / "heavy-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[xpo_bench]\nheavy = heavy\n")
    listed = (
        "from xpo_bench.runner.listing import rows; assert any(r['name'] == 'heavy' for r in rows('algos'))"
    )
    assert "torch" in modules(f"sys.path.insert(0, {str(tmp_path)!r}); {listed}")


def test_reading_a_run_imports_no_torch(modules: Modules, warm: Command) -> None:
    for out, seeds in (("one", "2"), ("two", "7,8")):
        words = [
            "run",
            "--algos",
            "dpo,ipo",
            "--tasks",
            "bandit",
            "--steps",
            "4",
            "--seeds",
            seeds,
            "--out",
            out,
        ]
        assert warm(*words).code == 0
    loaded = modules(
        COMMAND.format(
            commands=[
                ["show", "one"],
                ["show", "one", "--json"],
                ["status", "one"],
                [
                    "report",
                    "one",
                    "--html",
                    "page.html",
                    "--md",
                    "page.md",
                    "--json",
                    "page.json",
                    "--latex",
                    "t.tex",
                ],
                ["merge", "one", "two", "--out", "both"],
            ]
        )
    )
    assert not loaded & {"torch", "transformers", "datasets", "statsmodels"}
    # a data set for `datasets.load_dataset` is built by that package, which finds out what else there is
    assert not modules(COMMAND.format(commands=[["export", "one", "--to", "set"]])) & {
        "transformers",
        "statsmodels",
    }


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


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import of the suite: at the top of a module, inside of functions, and for type checkers alone."""
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)


@pytest.fixture(scope="module")
def contracts() -> list[dict[str, Any]]:
    """What import-linter holds the suite to."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    return found


def edges(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    """(importer, imported), in order of their names."""
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            yield module, imported


def circles(graph: grimp.ImportGraph) -> list[str]:
    """One line for each circle of imports: the shortest one through every import that lies on any."""
    found: dict[frozenset[str], str] = {}
    for importer, imported in edges(graph):
        back = graph.find_shortest_chain(importer=imported, imported=importer)
        if back is not None:
            found.setdefault(frozenset(back), " -> ".join([importer, *back]))
    return sorted(found.values())


def test_a_circle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in [("a", "b"), ("b", "c"), ("c", "a"), ("b", "d"), ("d", "b"), ("d", "e")]:
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == ["a -> b -> c -> a", "b -> d -> b"]


def test_no_modules_import_each_other_in_a_circle(imports: grimp.ImportGraph) -> None:
    found = circles(imports)
    assert not found, "\n".join(["circles of imports:", *found])


def test_no_module_imports_the_root_above_it(imports: grimp.ImportGraph) -> None:
    above = imports.find_modules_that_directly_import("xpo_bench")
    assert {m for m in above if m.startswith("xpo_bench.")} == {CLIENT}


def test_no_contract_excuses_an_import(contracts: list[dict[str, Any]]) -> None:
    assert {c["id"] for c in contracts} == {"floors", "host"}
    for contract in contracts:
        assert not {key for key in contract if "ignore" in key or key.startswith("allow")}, contract["id"]


def test_imports_for_type_checkers_keep_to_the_floors(
    imports: grimp.ImportGraph, contracts: list[dict[str, Any]]
) -> None:
    floors = next(c["layers"] for c in contracts if c["id"] == "floors")
    graph = copy.deepcopy(imports)
    graph.remove_module(CLIENT)
    illegal = graph.find_illegal_dependencies_for_layers(
        layers=[set(floor.split(" | ")) for floor in floors], containers={"xpo_bench"}
    )
    lines = [f"{d.importer} -> {d.imported}: {[r.heads for r in d.routes]}" for d in illegal]
    assert not lines, "\n".join(["imports from a floor above:", *lines])
