"""The command that a report gives for a cell plans the same cell, whatever its run was asked."""

from __future__ import annotations

import shlex
from pathlib import Path

import xpo_bench
from xpo_bench import plugins
from xpo_bench.cli.run import run
from xpo_bench.report.records import record_of
from xpo_bench.report.reproduce import command
from xpo_bench.runner.effects import check_effects
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests
from xpo_bench.runner.settings import parse_set
from xpo_bench.runner.store import Store


def test_rates_samples_and_closed_forms(tmp_path: Path) -> None:
    """What one cell of a run does not read is not in its command, where it would be refused."""
    xpo_bench.run(
        "dpo,ipo,rlhf",
        "deterministic",
        seeds=1,
        steps=5,
        optimizer="sgd",
        set={"task.lr": [0.01, 0.02], "ipo.train.lr": 0.3, "ipo.train.optimizer": "adam"},
        out=tmp_path / "run",
    )
    both = "deterministic,overfit_pair"
    xpo_bench.run("dpo", both, seeds=1, steps=5, set={"task.kl_samples": 2}, out=tmp_path / "run")
    registry = plugins.load()
    records = [record_of(raw) for raw in Store(tmp_path / "run").records()]
    assert {r.algorithm.name for r in records} == {"dpo", "ipo", "rlhf"}
    assert len(records) == 6
    for record in records:
        words = shlex.split(command(record, registry))[2:]
        given = run.make_context("run", list(words)).params
        asked = requests(
            {k: v for k, v in given.items() if k in ("algos", "tasks", "seeds")}
            | {"set": parse_set(given["settings"])}
        )
        (cell,) = make_plan(asked, registry).cells
        check_effects(asked, [cell])
        assert cell.key == record.key, words
