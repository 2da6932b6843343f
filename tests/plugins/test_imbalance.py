"""imbalance: unpaired labels in a stated ratio, and what it does to KTO."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import as_a, numbers

import xpo_bench
from xpo_bench import ModelSpec, Single
from xpo_bench.data.synthetic import preference
from xpo_bench.errors import DataError, UsageError
from xpo_bench_plugins.tasks.imbalance import Imbalance

TABULAR = ModelSpec()


@pytest.mark.parametrize(("ratio", "desirable"), [(1.0, 550), (4.0, 220), (10.0, 100)])
def test_the_ratio_is_the_one_that_is_asked_for_and_the_rest_stays(ratio: float, desirable: int) -> None:
    dataset = Imbalance(ratio=ratio).data(0, TABULAR)
    rows = [as_a(Single, e) for e in dataset.train]
    assert dataset.kind == "singles"
    assert len(rows) == dataset.rows == 1100
    assert sum(e.desirable for e in rows) == desirable
    assert dataset.world == Imbalance(ratio=1).data(1, TABULAR).world
    # in a random order: the first rows are evaluated, and both kinds are among them
    assert 0 < sum(e.desirable for e in rows[:100]) < 100


def test_labels_follow_the_preference() -> None:
    """Of the desirable labels each action has its part of the comparisons that it wins."""
    dataset = Imbalance(prompts=1, actions=3, labels=40_000, ratio=1).data(0, TABULAR)
    world = dataset.world
    assert world is not None
    rows = Counter((as_a(Single, e).completion, as_a(Single, e).desirable) for e in dataset.train)
    for a in ("y0", "y1", "y2"):
        wins = np.mean([preference(world, "x0", a, b) for b in ("y0", "y1", "y2") if b != a])
        found = rows[a, True] / (rows[a, True] + rows[a, False])
        assert found == pytest.approx(wins, abs=0.02)


def test_labels_without_a_desirable_one_are_refused() -> None:
    with pytest.raises(DataError, match="4 labels at 1:10 have no desirable one; want at least"):
        Imbalance(labels=4).data(0, TABULAR)


def attained(path: Path, **words: Any) -> list[float]:
    result = xpo_bench.run(algos=["kto"], tasks=["imbalance"], seeds=2, steps=400, out=path, **words)
    return [numbers(c["metrics"])["attained_1"] for c in result.cells]


def test_imbalance_costs_kto_reward_and_weights_give_some_of_it_back(tmp_path: Path) -> None:
    even = attained(tmp_path / "1", set={"task.ratio": 1.0})
    uneven = attained(tmp_path / "10")
    weighted = attained(tmp_path / "w", set={"kto.desirable_weight": 10.0})
    assert min(even) > 0.85
    assert max(uneven) < 0.6
    assert min(weighted) > max(uneven) + 0.1


def test_losses_of_pairs_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dpo does not fit task imbalance: needs preference pairs"):
        xpo_bench.run(algos=["dpo"], tasks=["imbalance"], seeds=1, out=tmp_path)
