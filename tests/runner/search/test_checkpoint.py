"""The checkpoint at a KL: where a run first passes it, found between the evaluations of its curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from narrow import present

from xpo_bench import plugins
from xpo_bench.runner.execute import Session, execute
from xpo_bench.runner.plan import Cell, Plan, make_cell, make_plan
from xpo_bench.runner.record import Checkpoint, Record
from xpo_bench.runner.request import requests
from xpo_bench.runner.search import checkpoint
from xpo_bench.runner.store import Store


def cells(**words: Any) -> list[Cell]:
    asked = requests({"algos": "dpo", "tasks": "bandit", "seeds": 2, "steps": 100} | words)
    return make_plan(asked, plugins.load()).cells


class Paths:
    """Runs whose KL at a step is a function of it, evaluated at few steps."""

    def __init__(self, kl: Any, evaluated: Sequence[int] = (0, 50, 100), steps: int = 100) -> None:
        self.kl, self.evaluated, self.steps = kl, evaluated, steps
        self.ran: list[Cell] = []

    def run(self, plan: Plan) -> list[Record]:
        self.ran += plan.cells
        return [self.record(cell) for cell in plan.cells]

    def record(self, cell: Cell) -> Record:
        step = cell.stop or cell.setup.budget.steps
        beta = cell.config["beta"]
        record: Any = {"status": "ok", "metrics": {"kl": self.kl(step, beta)}, "timing": {"steps": step}}
        return record  # type: ignore[no-any-return]

    def curve(self, key: str) -> list[Mapping[str, Any]]:
        beta = next(cell.config["beta"] for cell in self.ran if cell.key == key)
        return [{"step": step, "kl": self.kl(step, beta)} for step in self.evaluated]

    def find(
        self, settled: bool = False, nearest: float | None = None, target: float = 1.0
    ) -> tuple[list[Cell], list[checkpoint.Stopped | None]]:
        subject = checkpoint.Subject(cells(steps=self.steps), "beta", nearest, settled)
        return checkpoint.find([subject], target, self.run, self.curve, lambda _: None)


def test_the_step_is_found_between_two_evaluations() -> None:
    """KL = (t / 60)² passes 1 at step 60, between evaluations at 50 (.69) and 100 (2.8)."""
    paths = Paths(lambda t, beta: (t / 60) ** 2)
    stopped, (found,) = paths.find()
    assert [cell.stop for cell in stopped] == [60, 60]
    assert {cell.experiment for cell in stopped} == {"kl=1"}
    assert found is not None
    assert (found["steps"], found["of"], found["reached"]) == ([60, 60], 100, True)
    assert found["kl"] == pytest.approx(1, rel=checkpoint.CLOSE)
    assert found["keys"] == [cell.key for cell in stopped]


@pytest.mark.parametrize("power", [0.3, 1, 3, 8])
def test_curves_of_any_shape_are_stopped_just_beyond_the_target(power: float) -> None:
    """KL = (t / 6100)^p passes 1 at step 6,100, between evaluations at 5,000 and 10,000."""
    paths = Paths(lambda t, beta: (t / 6100) ** power, (0, 5000, 10000), steps=10000)
    _, (found,) = paths.find()
    assert found is not None
    assert 1 <= present(found["kl"]) <= 1 + checkpoint.CLOSE
    assert min(found["steps"]) >= 6100


def test_the_first_crossing_counts() -> None:
    """A KL that returns is taken where it first passes."""
    paths = Paths(
        lambda t, beta: {0: 0.0, 10: 3.0, 50: 0.2}.get(t, 5.0 if t > 10 else 0.3 * t), (0, 10, 50, 100)
    )
    _, (found,) = paths.find()
    assert found is not None
    assert found["steps"] == [4, 4]  # .3t passes 1 there, and no step is within 2 %


def test_a_looser_run_stands_in_where_the_default_is_held_back() -> None:
    paths = Paths(lambda t, beta: t / 100 * (0.5 if beta == 0.1 else 2.0))
    stopped, (found,) = paths.find(nearest=0.02)
    assert found is not None
    assert (found["value"], found["steps"]) == (0.02, [50, 50])
    assert {cell.config["beta"] for cell in stopped} == {0.02}


def test_a_run_that_never_gets_there_keeps_its_row() -> None:
    paths = Paths(lambda t, beta: 0.4 * t / 100)
    stopped, (found,) = paths.find(nearest=0.02)
    assert found is not None
    assert (found["value"], found["reached"], found["kl"]) == (0.1, False, 0.4)
    assert [(cell.stop, cell.checkpoint) for cell in stopped] == 2 * [
        (None, {"target_kl": 1.0, "step": 100, "steps": 100, "reached": False})
    ]


def test_beside_a_settled_answer_the_checkpoint_is_no_row() -> None:
    paths = Paths(lambda t, beta: t / 50)
    stopped, (found,) = paths.find(settled=True)
    assert stopped == []
    assert found is not None
    ran = [cell for cell in paths.ran if cell.key in found["keys"]]
    assert {cell.stop for cell in ran} == {50}
    assert {cell.experiment for cell in ran} == {"kl=1 search"}  # which tables leave out
    _, (found,) = Paths(lambda t, beta: 0.4).find(settled=True)
    assert found is not None
    assert (found["reached"], found["keys"]) == (False, [])


def test_a_stopped_cell_of_a_language_model_is_measured_where_it_stops(tmp_path: Path) -> None:
    """Its KL is sampled and its held-out pairs are scored there, whatever the calendar says."""
    rows = [{"prompt": f"x{i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    small = {"kl_prompts": 2, "kl_samples": 2, "max_new_tokens": 4}
    words = {"data": str(file), "tasks": None, "model": "tiny", "heldout": 0.5, "steps": 9, "seeds": 1}
    (cell,) = cells(**words, set={f"task.{k}": v for k, v in small.items()})
    at: Checkpoint = {"target_kl": 1.0, "step": 4, "steps": 9, "reached": True}
    train = (cell.lr, cell.optimizer)
    stop = make_cell(cell.setup, cell.algorithm, cell.info, train, cell.seed, "kl=1", checkpoint=at)
    assert stop.key != cell.key
    store = Store(tmp_path / "r")
    whole, stopped = execute(Plan([cell, stop]), store, Session(plugins.load())).cells
    assert stopped["checkpoint"] == at
    assert "checkpoint" not in whole
    assert stopped["timing"]["steps"] == 4
    assert stopped["task"]["budget"]["steps"] == 9
    assert {"kl", "heldout_reward_accuracy"} <= stopped["metrics"].keys()
