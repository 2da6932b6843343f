"""`xpo-bench compare` and `baseline` as installed commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from comparisons import spoil

from xpo_bench import plugins
from xpo_bench.compare.baselines import Cell, cell_of, read
from xpo_bench.report.runs import canonical
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.recording import cell_record
from xpo_bench.runner.request import requests

ROOT = Path(__file__).parents[2]
RUN = ["run", "--algos", "dpo", "--tasks", "one_pair,deterministic", "--steps", 20, "--quiet"]
OFFSET = """
from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Algorithm, Step, hookimpl


@dataclass(frozen=True)
class Offset(Algorithm):
    name: ClassVar[str] = "offset"

    def loss(self, step: Step):
        return {sign}step.log_ratio("chosen")


@hookimpl
def xpo_algorithms():
    return [Offset]
"""


@pytest.fixture
def two(warm: Any, tmp_path: Path) -> Path:
    """Two runs of the same cells."""
    for name in ("a", "b"):
        assert warm(*RUN, "--seeds", 3, "--out", name).code == 0
    return tmp_path


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


def test_a_changed_setting_is_judged_by_name(two: Path, warm: Any) -> None:
    assert warm(*RUN, "--seeds", 3, "--set", "dpo.beta=5", "--out", "c").code == 0
    refused = warm("compare", "a", "c")
    assert refused.code == 4
    assert "cannot be compared: config.beta 0.1 → 5.0" in " ".join(refused.out.split())
    assert "`--match algorithm` judges the effect of changed settings" in refused.out
    found = warm("compare", "a", "c", "--match", "algorithm", "--json").json
    change = {"setting": "config.beta", "base": 0.1, "new": 5.0}
    assert [cell["changes"] for cell in found["cells"]] == [[change], [change]]
    assert "moved" in {test["verdict"] for test in found["tests"]}


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
    "match of ab": (["compare", "--ab", "a", "a", "--match", "algorithm"], "--match: not with --ab"),
    "source of ab": (["compare", "--ab", "a", "a", "--same-source"], "--same-source: not with --ab"),
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


def documented() -> tuple[list[str], list[str]]:
    """The words of the run that docs/ci.md compares with the committed baseline, and of the comparison."""
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    (found,) = re.findall(r"^xpo-bench (run .*)\nxpo-bench (compare results/.*)$", page, re.MULTILINE)
    return shlex.split(found[0]), shlex.split(found[1])


def test_the_documented_run_has_the_cells_of_the_committed_baseline() -> None:
    """Settings, data and seeds of all of them, also of the language model, which is not trained here."""
    words = documented()[0][1:]
    asked = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    del asked["out"]
    plan = make_plan(requests(asked | {"steps": int(asked["steps"])}), plugins.load())
    here = [
        cell_of(
            cell_record(
                cell, None, status="ok", error=None, model={"name": cell.setup.model.name}, environment={}
            )
        )
        for cell in plan.cells
    ]
    committed = read(ROOT / "results" / "baselines" / "quick-cpu.json").all_cells

    def places(cells: list[Cell]) -> list[str]:
        return sorted(canonical([c.identity, c.seed, c.data, c.task_version]) for c in cells)

    assert places(here) == places(committed)


def test_the_committed_baseline_is_still_met(warm: Any) -> None:
    """On any machine: equal bits or equivalent, and never worse. Its language model is left out here."""
    run, compare = documented()
    suite = run.index("--suite")
    run[suite : suite + 2] = ["--tasks", "bandit,deterministic,travel"]
    assert warm(*run).code == 0
    compare[1] = str(ROOT / compare[1])
    found = warm(*compare, "--json")
    here, rest = (
        [c for c in found.json["cells"] if (c["task"] == "overfit_pair") == left] for left in (False, True)
    )
    assert len(here) == 12
    assert {cell["verdict"] for cell in here} <= {"same", "equivalent"}
    assert {reason for cell in rest for reason in cell["reasons"]} == {"the task is missing from the new run"}
    assert found.code == 4


def test_a_run_that_was_extended_counts_what_was_planned_last(warm: Any, tmp_path: Path) -> None:
    words = ["run", "--algos", "offset", "--tasks", "one_pair", "--steps", 5, "--seeds", 2, "--quiet"]
    plugin = tmp_path / "site" / "offset_plugin_0.py"
    # of two lengths: Python takes compiled code whose source has the same length and second for fresh
    for number, sign in enumerate(("-", "")):
        folder = tmp_path / "site"
        info = folder / "offset_plugin-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offset-plugin\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text("[xpo_bench]\noffset = offset_plugin_0\n", "utf-8")
        plugin.write_text(OFFSET.format(sign=sign), "utf-8")
        env = {"PYTHONPATH": str(folder)}
        for out in ("both", f"only{number}"):
            assert warm(*words, "--out", out, **env).code == 0
    assert len(list((tmp_path / "both" / "cells").glob("*.json"))) == 4
    found = warm("compare", "only1", "both")
    assert found.code == 0, found.out
    assert "2 left out that a later command measured again" in " ".join(found.out.split())
    assert warm("compare", "only0", "both").code == 3
