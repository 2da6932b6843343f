"""The plan file of docs/cli.md, word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpo_bench.report.experiments import of_experiments, others
from xpo_bench.report.records import record_of

Command = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def documented() -> str:
    section = PAGE.read_text("utf-8").split("### A plan file")[1]
    found = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def test_the_documented_plan_s_tasks_are_all_in_the_tables(warm: Command, tmp_path: Path) -> None:
    """Its label is the name of one of the article's experiments, which have tables of their own."""
    plan = documented()
    assert 'experiment = "overfit"' in plan
    (tmp_path / "plan.toml").write_text(plan, "utf-8")
    done = warm("run", "plan.toml", "--steps", "5", "--seeds", "1", "--out", "run")
    assert done.code == 0, done.err
    # the first screen's line of the task, the table of the task, and a sentence on it
    assert "overfit_pair (overfit)" in done.out
    assert "DPO overfits one pair" not in done.out
    records = [
        record_of(json.loads(path.read_text("utf-8"))) for path in (tmp_path / "run" / "cells").glob("*.json")
    ]
    labelled = [r for r in records if r.task.name == "overfit_pair"]
    assert {(r.experiment, r.suite) for r in labelled} == {("overfit", None)}
    assert of_experiments(records) == {}
    assert len(others(records)) == len(records)


def test_records_from_before_the_suite_was_noted_are_read_as_they_were(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'algos = "dpo"\ntasks = "overfit_pair,bandit"\nexperiment = "overfit"\n', "utf-8"
    )
    done = warm("run", "plan.toml", "--steps", "5", "--seeds", "1", "--json", "--out", "run")
    old = [record_of({k: v for k, v in cell.items() if k != "suite"}) for cell in done.json["cells"]]
    (members,) = of_experiments(old).values()
    assert [r.task.name for r in members] == ["overfit_pair"]
    suites = [record_of(cell | {"suite": "article"}) for cell in done.json["cells"]]
    assert [r.task.name for r in of_experiments(suites)["overfit"]] == ["overfit_pair"]
