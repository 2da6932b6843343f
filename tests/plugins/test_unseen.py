"""unseen: what shared features tell of actions that no pair contains, and a table cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import as_a, numbers, present

import xpo_bench
from xpo_bench import ModelSpec, Pair
from xpo_bench.runner.record import Record
from xpo_bench_plugins.tasks.unseen import Unseen

LINEAR = ModelSpec(name="linear")


def cell(path: Path, **words: Any) -> Record:
    words = {"algos": ["dpo"], "tasks": [Unseen], "seeds": 1, "steps": 300, **words}
    (found,) = xpo_bench.run(out=path, **words).cells
    assert found["status"] == "ok"
    return found


@pytest.mark.parametrize("coverage", [0.01, 0.5, 0.99])
def test_no_action_is_on_both_sides(coverage: float) -> None:
    dataset = Unseen(coverage=coverage).data(0, LINEAR)
    sides = [
        {(e.prompt, t) for e in (as_a(Pair, row) for row in rows) for t in (e.chosen, e.rejected)}
        for rows in (dataset.train, dataset.heldout)
    ]
    assert not sides[0] & sides[1]
    assert {prompt for prompt, _ in sides[0]} == {prompt for prompt, _ in sides[1]}
    assert present(dataset.world) == present(Unseen(coverage=coverage).data(1, LINEAR).world)


def test_the_reward_is_linear_in_the_features() -> None:
    world = present(Unseen().data(0, LINEAR).world)
    phi = np.array([world.features[x][y] for x, texts in world.actions.items() for y in texts])
    r = np.array([world.reward[x][y] for x, texts in world.actions.items() for y in texts])
    weights, residual, rank, _ = np.linalg.lstsq(phi, r, rcond=None)
    assert rank == phi.shape[1]
    assert residual.max(initial=0.0) == pytest.approx(0, abs=1e-20)
    assert np.linalg.norm(weights) == pytest.approx(2)


def test_a_linear_policy_ranks_what_it_never_saw_and_a_table_keeps_the_odds(tmp_path: Path) -> None:
    linear = cell(tmp_path / "linear", model="linear")
    assert numbers(linear["metrics"])["heldout_reward_accuracy"] > 0.75
    table = cell(tmp_path / "table", model="tabular")
    assert numbers(table["metrics"])["heldout_reward_accuracy"] == 0.5  # every one of them a tie
    dataset = Unseen().data(0, LINEAR)
    world, policy = present(dataset.world), present(table["final_policy"])
    for e in (as_a(Pair, row) for row in dataset.heldout):
        ratio = [policy[e.prompt][t] / world.reference[e.prompt][t] for t in (e.chosen, e.rejected)]
        assert ratio[0] == pytest.approx(ratio[1], rel=1e-9)
