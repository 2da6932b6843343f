"""hump: the true reward against KL along a run of DPO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from narrow import as_a, numbers, present

import xpo_bench
from xpo_bench import ModelSpec, Pair
from xpo_bench_plugins.tasks.hump import Hump

LINEAR = ModelSpec(name="linear")


def test_few_pairs_of_what_the_reference_writes() -> None:
    dataset = Hump(pairs=4000).data(0, LINEAR)
    world = present(dataset.world)
    assert len(world.actions["x"]) == 200
    assert {len(f) for f in world.features["x"].values()} == {24}
    assert len(Hump().data(0, LINEAR).train) == 60
    reward = np.array(list(world.reward["x"].values()))
    assert (reward.mean(), reward.std()) == (pytest.approx(0), pytest.approx(0.5))
    reference = np.array(list(world.reference["x"].values()))
    assert reference @ reward > 0.4  # it leans to what is good
    seen = np.zeros(200)
    for e in (as_a(Pair, row) for row in dataset.train):
        for text in (e.chosen, e.rejected):
            seen[world.actions["x"].index(text)] += 1
    assert np.corrcoef(seen / seen.sum(), reference)[0, 1] > 0.98


def test_the_curve_of_dpo_rises_and_falls(tmp_path: Path) -> None:
    seeds = 8
    result = xpo_bench.run(algos=["dpo"], tasks=["hump"], seeds=seeds, out=tmp_path)
    curves = [pd.read_parquet(tmp_path / "curves" / f"{c['key']}.parquet") for c in result.cells]
    steps = curves[0]["step"].to_numpy()
    kl, reward = (np.mean([c[name].to_numpy() for c in curves], 0) for name in ("kl", "gold_reward"))
    assert (np.diff(kl) > 0).all()
    top, peak = int(steps[reward.argmax()]), float(reward.max())
    assert 20 <= top <= 200
    assert peak > reward[0] + 0.5
    assert reward[-1] < peak - 0.5
    # what is read within a nat does not see the fall
    assert np.mean([numbers(c["metrics"])["attained_1"] for c in result.cells]) > 0.4
    # many pairs: nothing of the noise is left to be fitted
    many = xpo_bench.run(algos=["dpo"], tasks=["hump"], seeds=1, out=tmp_path / "m", set={"task.pairs": 1000})
    assert numbers(many.cells[0]["metrics"])["gold_reward"] > peak
