"""Best of n: the law of the winners, how many there are, and the bound on its KL."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import present
from small_worlds import REFERENCE, TableTools

import xpo_bench
from xpo_bench import Completion, Pair, Scores, Step
from xpo_bench_plugins.algorithms.bon import BestOfN

PAIRS = [Pair("x", c, r) for c, r in ("ba", "ca", "cb", "db", "dc", "da", "cd", "ab", "bc", "ad")]


def law(reference: np.ndarray, reward: np.ndarray, n: int) -> np.ndarray:
    """F(y)^n − F(y−)^n for distinct rewards."""
    up_to = np.array([reference[reward <= r].sum() for r in reward])
    below = np.array([reference[reward < r].sum() for r in reward])
    return np.asarray(up_to**n - below**n)


def counts(singles: Any, texts: str = "abcd") -> np.ndarray:
    return np.array([np.mean([s.completion == t for s in singles]) for t in texts])


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_winners_follow_the_law_of_the_best_of_n(n: int) -> None:
    tools = TableTools()
    singles = BestOfN(candidates=n, kept=20_000).shape_data(PAIRS, tools)
    reward = np.array(tools.fit_reward(PAIRS, 0.01)(tools.actions("x")))
    assert len(set(reward)) == 4
    expected = law(np.array(REFERENCE), reward, n)
    assert expected.sum() == pytest.approx(1)
    assert counts(singles) == pytest.approx(expected, abs=0.015)
    assert tools.notes["sampled_reward"] == pytest.approx(float(counts(singles) @ reward))
    kl = float((expected * np.log(expected / REFERENCE)).sum())
    assert tools.notes["kl_bound"] == pytest.approx(math.log(n) - (n - 1) / n)
    assert -1e-12 <= kl <= tools.notes["kl_bound"] + 1e-12


def test_at_equal_rewards_the_first_wins_so_that_the_reference_stays() -> None:
    singles = BestOfN(candidates=8, kept=20_000).shape_data(
        [Pair("x", "a", "b"), Pair("x", "b", "a")], TableTools((0.7, 0.3))
    )
    assert counts(singles, "ab") == pytest.approx([0.7, 0.3], abs=0.015)


@pytest.mark.parametrize(("rows", "kept", "expected"), [(10**6, 3, 9), (7, 64, 7), (2, 64, 2), (6, 1, 3)])
def test_winners_are_as_many_as_the_budget_can_use_and_spread_over_the_prompts(
    rows: int, kept: int, expected: int
) -> None:
    tools = TableTools()
    tools.rows = rows
    data = [Pair(p, "b", "a") for p in "xyz"] * 2
    algorithm = BestOfN(candidates=2, kept=kept)
    singles: Any = algorithm.shape_data(data, tools)
    assert len(singles) == expected
    per_prompt = [sum(s.prompt == p for s in singles) for p in "xyz"]
    assert max(per_prompt) - min(per_prompt) <= 1
    assert all(s.desirable for s in singles)
    assert algorithm.completions(singles) == {
        "completion": [Completion(s.prompt, s.completion) for s in singles]
    }


def test_the_loss_sums_over_tokens() -> None:
    import torch

    logps = torch.tensor([[-1.0, -2.0, -4.0], [-1.0, -9.0, -9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert BestOfN().loss(Step({"completion": Scores(logps, mask)})).tolist() == [7.0, 1.0]


def test_the_trained_policy_approaches_the_law(tmp_path: Path) -> None:
    names, reward = "abcd", (0.0, 0.5, 1.0, 1.5)
    pairs = []
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
        wins = round(60 / (1 + math.exp(reward[i] - reward[j])))
        pairs += [(names[j], names[i])] * wins + [(names[i], names[j])] * (60 - wins)
    data, world = tmp_path / "p.jsonl", tmp_path / "w.json"
    data.write_text("".join(json.dumps({"prompt": "x", "chosen": c, "rejected": r}) + "\n" for c, r in pairs))
    truth = {
        "reference": dict(zip(names, REFERENCE, strict=True)),
        "reward": dict(zip(names, reward, strict=True)),
    }
    world.write_text(json.dumps({"x": truth}))
    result = xpo_bench.run(
        algos="bon",
        data=str(data),
        world=str(world),
        model="tabular",
        seeds=1,
        steps=800,
        lr=0.02,
        set={"bon.kept": 10_000, "bon.candidates": [2, 4]},
        out=tmp_path / "run",
    )
    assert [c["status"] for c in result.cells] == ["ok", "ok"]
    for cell in result.cells:
        n, policy = cell["algorithm"]["config"]["candidates"], present(cell["final_policy"])["x"]
        expected = law(np.array(REFERENCE), np.array(reward), n)  # the fitted rewards stand in the same order
        found = np.array([policy[a] for a in names])
        assert found == pytest.approx(expected, abs=0.02)
        assert cell["metrics"]["kl"] <= cell["notes"]["kl_bound"]
        assert cell["metrics"]["kl"] == pytest.approx(
            float((expected * np.log(expected / REFERENCE)).sum()), abs=0.04
        )


def test_it_runs_on_a_language_model(tmp_path: Path) -> None:
    result = xpo_bench.run(
        algos="bon",
        tasks="overfit_pair",
        seeds=1,
        steps=40,
        set={"bon.kept": 40, "task.kl_samples": 16},
        out=tmp_path,
    )
    (cell,) = result.cells
    assert cell["status"] == "ok", cell["error"]
    assert present(cell["metrics"]["kl"]) > 0
    assert cell["notes"]["kl_bound"] == pytest.approx(math.log(16) - 15 / 16)
