"""AuxDPO: offsets in the null space at the reference, and where they lead on a misspecified world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from small_worlds import REFERENCE, TableTools

from xpo_bench import Algorithm, Budget, Completion, Dataset, Pair, World
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.random_streams import stream
from xpo_bench.train.job import Job
from xpo_bench.train.tools import CellTools
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.aux_dpo import AuxDPO
from xpo_bench_plugins.algorithms.dpo import DPO

# one parameter, three actions, a uniform reference; the reward is not linear in the feature
FEATURE, REWARD = np.array([1.0, -2.0, 0.0]), np.array([1.0, 2.0, 0.0])
WEIGHTS = {(0, 1): 0.1, (0, 2): 1.0, (1, 2): 0.1}
WORLD = World(
    actions={"x": ("a", "b", "c")},
    features={"x": {t: (float(f),) for t, f in zip("abc", FEATURE, strict=True)}},
    reward={"x": dict(zip("abc", REWARD.tolist(), strict=True))},
)
BUDGET = Budget(
    steps=150, batch_size=10**6, lr=0.05, dtype="float64", eval_pairs=1, heldout_pairs=1, kl_prompts=1
)


def rows(weights: dict[tuple[int, int], float] = WEIGHTS, scale: int = 2000) -> tuple[Pair, ...]:
    """Pairs in the proportions of the population: Bradley–Terry preferences at the rates of `weights`."""
    out: list[Pair] = []
    for (i, j), weight in weights.items():
        wins = round(scale * weight / (1 + np.exp(REWARD[j] - REWARD[i])))
        out += [Pair("x", "abc"[i], "abc"[j])] * wins
        out += [Pair("x", "abc"[j], "abc"[i])] * (round(scale * weight) - wins)
    return tuple(out)


def never(*_: object) -> object:
    raise AssertionError("an exact policy scores its own reference")


def trained(algorithms: Sequence[Algorithm], data: tuple[Pair, ...], tabular: bool = False) -> np.ndarray:
    """The distribution over the actions that each algorithm ends at, shape (algorithms, 3)."""
    policy = (TabularPolicy if tabular else LinearPolicy)(WORLD, len(algorithms))
    jobs = [
        Job(a, "test", 0, BUDGET.lr, "adam", Dataset(train=data, world=WORLD), BUDGET) for a in algorithms
    ]
    GroupTrainer(policy, jobs, never).run()  # type: ignore[arg-type]
    return policy.log_probs()[:, 0].exp().numpy()


def policy_at(theta: float) -> np.ndarray:
    weights = np.exp(theta * FEATURE)
    return np.asarray(weights / weights.sum())


def in_class_rlhf(beta: float) -> np.ndarray:
    """max E r − β·KL over the one parameter, by search."""

    def cost(theta: float) -> float:
        p = policy_at(theta)
        return float(beta * p @ np.log(3 * p) - p @ REWARD)

    return policy_at(minimize_scalar(cost, bounds=(-20, 20), method="bounded", options={"xatol": 1e-10}).x)


def natural_step(beta: float) -> np.ndarray:
    """θ = F⁻¹ A r/β from the reference."""
    centred = FEATURE - FEATURE.mean()
    return policy_at(float(centred @ REWARD / (centred @ centred)) / beta)


def test_dpo_falls_below_its_reference_and_aux_dpo_comes_to_rlhf() -> None:
    """β = 1: DPO .911, the natural-gradient step 1.338, in-class RLHF 1.479; the reference has 1."""
    exact = 1e-6
    found = trained([DPO(1.0), AuxDPO(1.0, exact)], rows())
    (again,) = trained([AuxDPO(1.0, exact, refit=3)], rows())
    assert found[0] @ REWARD == pytest.approx(0.911, abs=5e-3)
    assert found[1] @ REWARD == pytest.approx(1.338, abs=5e-3)
    assert again @ REWARD == pytest.approx(1.479, abs=5e-3)
    np.testing.assert_allclose(found[1], natural_step(1.0), atol=3e-3)
    np.testing.assert_allclose(again, in_class_rlhf(1.0), atol=3e-3)


def test_a_large_beta_makes_the_first_step_that_of_rlhf() -> None:
    """What the theory is about: the two differ in second order of 1/β."""
    gaps = [float(np.abs(natural_step(b) - in_class_rlhf(b)).max()) for b in (4.0, 8.0)]
    assert gaps[1] < 0.3 * gaps[0]
    (found,) = trained([AuxDPO(4.0, 1e-6)], rows())
    np.testing.assert_allclose(found, in_class_rlhf(4.0), atol=0.01)


def test_how_often_pairs_are_compared_decides_dpo_and_not_aux_dpo() -> None:
    even = rows(dict.fromkeys(WEIGHTS, 1.0))
    skewed, fair = (trained([DPO(1.0), AuxDPO(1.0, 1e-6)], data) for data in (rows(), even))
    assert abs(float((skewed[0] - fair[0]) @ REWARD)) > 0.2
    np.testing.assert_allclose(skewed[1], fair[1], atol=2e-3)


def test_offsets_lie_in_the_null_space_at_the_reference() -> None:
    """Σ_x ρ(x) Σ_y π_ref(y|x) δ(x, y) ∇ log π_ref(y|x) = 0, for features of two prompts and three numbers."""
    rng = np.random.default_rng(3)
    texts = ("a", "b", "c", "d", "e")
    world = World(
        actions=dict.fromkeys("xy", texts),
        reference={p: dict(zip(texts, rng.dirichlet(np.ones(5)), strict=True)) for p in "xy"},
        features={p: {t: tuple(rng.normal(size=3)) for t in texts} for p in "xy"},
    )
    pairs = [
        Pair("xxy"[rng.integers(3)], texts[i], texts[j])
        for i, j in (rng.permutation(5)[:2] for _ in range(400))
    ]
    policy = LinearPolicy(world, 1)
    tools = CellTools(policy, 0, policy.snapshot(), stream(0, "test", "generate"), BUDGET)
    tools.examples = pairs
    # chains from "a" give δ of every completion against that of "a"
    chains = [Pair(p, t, "a") for p in "xy" for t in texts[1:]]
    offsets = [row.offset for row in AuxDPO().shape_data(chains, tools)]  # type: ignore[union-attr]
    delta = np.concatenate([np.zeros((2, 1)), np.reshape(offsets, (2, 4))], 1)
    p = policy.log_probs()[0].exp().numpy()
    centred = policy.features.numpy() - (p[..., None] * policy.features.numpy()).sum(1, keepdims=True)
    rates = Counter(pair.prompt for pair in pairs)
    share = np.array([rates["x"], rates["y"]])[:, None] / len(pairs)
    np.testing.assert_allclose(((share * p * delta)[..., None] * centred).sum((0, 1)), 0, atol=1e-12)
    assert np.abs(delta).max() > 0.1
    # δ and what θ expresses add up to the fitted reward
    reward = tools.fit_reward(pairs, 0.01)
    rest = np.array([reward([Completion(p, t) for t in texts]) for p in "xy"])
    rest = rest - rest[:, :1] - delta
    flat = (policy.features.numpy() - policy.features.numpy()[:, :1]).reshape(-1, 3)
    residual = rest.ravel() - flat @ np.linalg.lstsq(flat, rest.ravel(), rcond=None)[0]
    np.testing.assert_allclose(residual, 0, atol=1e-10)


def test_on_a_table_no_offset_is_left_and_the_loss_is_dpos() -> None:
    tools = TableTools(REFERENCE)
    pairs = [Pair("x", "a", "b"), Pair("x", "b", "c"), Pair("x", "d", "a")]
    tools.examples = pairs
    shaped = AuxDPO().shape_data(pairs, tools)
    assert [row.offset for row in shaped] == [0, 0, 0]  # type: ignore[union-attr]
    assert [replace(row, offset=0.0).chosen for row in shaped] == [p.chosen for p in pairs]  # type: ignore[call-arg,union-attr]
    found = trained([AuxDPO(0.5), DPO(0.5)], rows(), tabular=True)
    np.testing.assert_array_equal(found[0], found[1])
    assert torch.isfinite(torch.from_numpy(found)).all()
