"""misspecified: one parameter, uneven pairs; DPO below its reference, the class's own optimum above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from narrow import as_a, numbers, present
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

import xpo_bench
from xpo_bench import Algorithm, Completion, Group, ModelSpec, Pair, Step
from xpo_bench_plugins.tasks.misspecified import Misspecified

REWARD = np.array([1.0, 2.0, 0.0])
FEATURE = np.array([1.0, -2.0, 0.0])


def policy(theta: float) -> np.ndarray:
    weight = np.exp(theta * FEATURE)
    return np.asarray(weight / weight.sum())


def population_dpo(weight: float, beta: float = 1.0) -> float:
    """What the minimiser of DPO's expected loss earns, by scipy."""

    def loss(theta: float) -> float:
        total = 0.0
        for i, j, rate in ((0, 1, weight), (0, 2, 1.0), (1, 2, weight)):
            p, margin = expit(REWARD[i] - REWARD[j]), beta * theta * (FEATURE[i] - FEATURE[j])
            total -= rate * (p * log_expit(margin) + (1 - p) * log_expit(-margin))
        return float(total)

    return float(policy(minimize_scalar(loss, bounds=(-9, 9), method="bounded").x) @ REWARD)


def best_of_class(beta: float = 1.0) -> float:
    """What the policy of the class earns that maximises E r − β·KL, by scipy."""

    def objective(theta: float) -> float:
        p = policy(theta)
        return float(-(p @ REWARD - beta * (p @ np.log(3 * p))))

    found = [minimize_scalar(objective, bounds=b, method="bounded") for b in ((-9, 0), (0, 9))]
    return float(policy(min(found, key=lambda f: f.fun).x) @ REWARD)


@dataclass(frozen=True)
class InClass(Algorithm):
    """The exact objective E r − β·KL of the policy, differentiated; the true reward is known."""

    name: ClassVar[str] = "in-class"
    groups: ClassVar[Mapping[str, Group]] = {name: Group(reference=True) for name in ("y1", "y2", "y3")}
    beta: float = 1.0

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {name: [Completion("x", name)] * len(examples) for name in self.groups}

    def loss(self, step: Step) -> torch.Tensor:
        terms = [
            step.policy[name].sum.exp() * (self.beta * step.log_ratio(name) - reward)
            for name, reward in zip(self.groups, REWARD.tolist(), strict=True)
        ]
        return torch.stack(terms).sum(0)


def earned(path: Path, algorithm: Any, **words: Any) -> dict[str, float]:
    result = xpo_bench.run(algos=[algorithm], tasks=["misspecified"], seeds=1, out=path, **words)
    (cell,) = result.cells
    assert cell["status"] == "ok"
    return numbers(cell["metrics"])


def test_the_rows_are_the_population() -> None:
    dataset = Misspecified().data(0, ModelSpec(name="linear"))
    assert dataset == Misspecified().data(3, ModelSpec(name="linear"))
    won = Counter((as_a(Pair, e).chosen, as_a(Pair, e).rejected) for e in dataset.train)
    for a, b, rows in (("y1", "y2", 100), ("y1", "y3", 1000), ("y2", "y3", 100)):
        assert won[a, b] + won[b, a] == rows
        margin = REWARD[["y1", "y2", "y3"].index(a)] - REWARD[["y1", "y2", "y3"].index(b)]
        assert won[a, b] / rows == pytest.approx(expit(margin), abs=0.5 / rows)
    assert present(dataset.world).beta == 1


def test_population_dpo_earns_less_than_its_reference_and_rlhf_in_the_class_more(tmp_path: Path) -> None:
    assert population_dpo(0.1) == pytest.approx(0.911, abs=1e-3)
    assert best_of_class() == pytest.approx(1.479, abs=1e-3)
    dpo = earned(tmp_path / "dpo", "dpo", set={"dpo.beta": 1.0})
    assert dpo["gold_reward"] == pytest.approx(0.911, abs=1e-2)
    assert dpo["gold_reward"] < REWARD.mean() == 1.0
    assert dpo["attained"] == 0  # nothing on its way was better than the reference
    found = earned(tmp_path / "class", InClass)
    assert found["gold_reward"] == pytest.approx(1.479, abs=1e-2)
    # a sampled policy gradient on a reward fitted to the same pairs goes there too, up to its noise
    words = {"ppo.beta": 1.0, "ppo.reward_weight_decay": 0.0, "ppo.samples": 32, "ppo.train.lr": 0.003}
    assert earned(tmp_path / "ppo", "ppo", set=words, steps=500)["gold_reward"] == pytest.approx(
        1.479, abs=0.1
    )


def test_even_pairs_and_a_table_are_what_helps(tmp_path: Path) -> None:
    even = earned(tmp_path / "even", "dpo", set={"dpo.beta": 1.0, "task.weight": 1.0})
    assert even["gold_reward"] == pytest.approx(population_dpo(1.0), abs=1e-2)
    assert even["gold_reward"] > 1.25
    table = earned(tmp_path / "table", "dpo", model="tabular", set={"dpo.beta": 1.0})
    gibbs = np.exp(REWARD) / np.exp(REWARD).sum()
    assert table["gold_reward"] == pytest.approx(gibbs @ REWARD, abs=1e-2)
    assert table["regret"] < 1e-3
