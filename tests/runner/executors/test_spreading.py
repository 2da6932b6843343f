"""A command that does not say how many processes it wants takes the cores where that pays."""

from __future__ import annotations

import os
from typing import Any

import pytest

from xpo_bench import plugins
from xpo_bench.runner.executors import spreading
from xpo_bench.runner.executors.dispatcher import bundles
from xpo_bench.runner.executors.groups import groups
from xpo_bench.runner.executors.placement import ExecutionConfig, configured
from xpo_bench.runner.executors.spreading import spread
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests
from xpo_bench.runner.words import Execution


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "cores", lambda: 3)


MAY = ExecutionConfig(spreads=True)


def workers(execution: ExecutionConfig = MAY, **words: Any) -> int:
    asked = {"algos": ["dpo", "ipo"], "tasks": ["overfit_pair"], "seeds": [0, 1, 2], "steps": 200} | words
    return spread(execution, groups(make_plan(requests(asked), plugins.load()).cells)).workers


def test_small_models_that_take_long_are_spread() -> None:
    assert workers() == 3
    assert workers(algos=["dpo"], seeds=[0, 1], steps=500) == 2  # no more than there is to run
    assert workers(tasks=["overfit_pair", "bandit"]) == 3


@pytest.mark.parametrize(
    "words",
    [
        {"steps": 100},  # a process costs more than it saves
        {"seeds": [0], "algos": ["dpo"], "steps": 2000},  # one cell
        {"tasks": ["bandit"], "steps": 2000},  # one computation
        {"set": {"task.ensemble": 3}, "algos": ["dpo"]},  # one computation too
    ],
)
def test_others_stay_in_this_process(words: dict[str, Any]) -> None:
    assert workers(**words) == 1


def test_what_was_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(ExecutionConfig()) == 1
    assert workers(ExecutionConfig(workers=2, spreads=True)) == 2
    for asked, may in ((Execution(workers=1), False), (Execution(), True)):
        with configured(asked, spreads=True) as execution:
            assert execution.spreads is may
    with configured(Execution()) as execution:  # from Python: classes may be in no module
        assert not execution.spreads
    monkeypatch.setattr(spreading, "cores", lambda: 1)
    assert workers() == 1


def test_the_record_says_so(warm: Any) -> None:
    words = ["run", "--algos", "dpo,ipo", "--tasks", "overfit_pair", "--seeds", 1, "--steps", 500, "--json"]
    words += ["--set", "task.kl_prompts=1", "--set", "task.kl_samples=1", "--set", "task.max_new_tokens=1"]
    found, alone = (warm(*words, "--out", *where).json["cells"] for where in (["a"], ["b", "--workers", 1]))
    there = len(os.sched_getaffinity(0))
    assert [c["environment"].get("workers", 1) for c in found] == [min(2, there)] * 2
    assert ["workers" in c["environment"] for c in alone] == [False] * 2
    for mine, theirs in zip(found, alone, strict=True):
        assert mine["metrics"]["chosen_logp"] == theirs["metrics"]["chosen_logp"]


def test_what_takes_longest_begins_first() -> None:
    """A table reads the rows that it has, whatever the budget's batch: it is not what takes longest."""
    words: dict[str, Any] = {"algos": ["dpo", "ipo"], "tasks": ["deterministic", "overfit_pair", "bandit"]}
    plan = make_plan(requests({**words, "seeds": [0, 1, 2]}), plugins.load())
    begun = [bundle[0].batch.cells[0].setup for bundle in bundles(groups(plan.cells), 2)]
    assert [setup.model.tabular for setup in begun] == [False] * 4 + [True] * 2
    assert begun[-1].name == "deterministic"
