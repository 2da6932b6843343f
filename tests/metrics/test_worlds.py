"""Exact worlds against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation
from xpo_bench.metrics.curve import evaluate_point
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.metrics.regret import frontier_reward

REF = np.array([0.4, 0.3, 0.2, 0.1])
REWARD = np.array([0.0, 0.5, 1.0, 1.5])
WORKED = {
    1.0: ((0.212039, 0.262195, 0.288191, 0.237574), 0.140957),
    0.5: ((0.085073, 0.173439, 0.314304, 0.427184), 0.535643),
}

Pairs = Callable[..., Evaluation]
World = Callable[..., Any]


def gibbs(b: float, ref: np.ndarray = REF, reward: np.ndarray = REWARD) -> np.ndarray:
    weight = np.log(ref) + reward / b
    weight = np.exp(weight - weight.max())
    return np.asarray(weight / weight.sum())


def metrics(pairs: Pairs, world: Any, **more: Any) -> dict[str, np.ndarray]:
    runs = len(world.logp)
    return evaluate_point(pairs(np.full((runs, 1), -1.0), np.full((runs, 1), -1.0), world=world, **more))


@pytest.mark.parametrize("beta", sorted(WORKED))
def test_worked_row(pairs: Pairs, world: World, beta: float) -> None:
    probabilities, kl = WORKED[beta]
    np.testing.assert_allclose(gibbs(beta), probabilities, atol=1e-6)
    got = metrics(pairs, world([gibbs(beta)]), kl_strength=np.array([beta]))
    assert got["kl"][0] == pytest.approx(kl, abs=1e-6)
    assert got["frontier_gap"][0] == pytest.approx(0, abs=1e-9)
    assert got["regret"][0] == pytest.approx(0, abs=1e-12)
    assert got["gold_reward"][0] == pytest.approx(float(gibbs(beta) @ REWARD))
    assert got["entropy"][0] == pytest.approx(-float(gibbs(beta) @ np.log(gibbs(beta))))
    assert got["kl_forward"][0] == pytest.approx(float(REF @ np.log(REF / gibbs(beta))))


def test_frontier_gap_is_zero_on_the_whole_gibbs_family(pairs: Pairs, world: World) -> None:
    rng = np.random.default_rng(0)
    ref, reward = rng.dirichlet(np.ones(8), 5), rng.uniform(0, 8, (5, 8))
    policies = [[gibbs(b, ref[i], reward[i]) for i in range(5)] for b in np.logspace(-2, 8, 60)]
    gap = metrics(pairs, world(policies, ref, reward))["frontier_gap"]
    assert gap.min() >= 0
    assert gap.max() < 1e-9


def test_frontier_gap_at_the_ends(pairs: Pairs, world: World) -> None:
    one_hot, worst = np.array([0, 0, 0, 1.0]), np.array([1.0, 0, 0, 0])
    got = metrics(pairs, world([REF, REF * (1 + 1e-16), one_hot, worst]))
    np.testing.assert_allclose(got["frontier_gap"][:3], 0, atol=1e-9)
    assert got["kl"][0] == 0
    assert got["kl"][2] == pytest.approx(-np.log(0.1))
    # the budget of a policy that is sure of the worst action buys most of the best one
    best = frontier_reward(
        got["kl"][3:], np.log(REF)[None], np.ones((1, 4), bool), REWARD[None], np.ones((1, 1))
    )
    assert got["frontier_gap"][3] == pytest.approx(float(best[0]))
    # a budget beyond −log π_ref(argmax) buys the best action, no more
    far = frontier_reward(
        np.array([5.0]), np.log(REF)[None], np.ones((1, 4), bool), REWARD[None], np.ones((1, 1))
    )
    assert far[0] == 1.5


def test_frontier_is_the_maximum(pairs: Pairs, world: World) -> None:
    """No random policy lies above the frontier, and a grid of b cannot beat the solution."""
    rng = np.random.default_rng(1)
    policies = rng.dirichlet(np.ones(4), 200)
    got = metrics(pairs, world(policies))
    best = got["gold_reward"] + got["frontier_gap"]
    family = np.array([gibbs(b) for b in np.logspace(-2, 4, 4000)])
    kl = (family * np.log(np.maximum(family, 1e-300) / REF)).sum(-1)
    reward = family @ REWARD
    for r in range(200):
        on_grid = reward[kl <= got["kl"][r]].max(initial=float(REF @ REWARD))
        assert on_grid <= best[r] + 1e-12
        assert best[r] - on_grid < 0.01


def test_constant_reward_has_no_gap(pairs: Pairs, world: World) -> None:
    got = metrics(pairs, world([gibbs(1.0), REF], reward=np.full(4, 2.0)))
    np.testing.assert_allclose(got["frontier_gap"], 0, atol=1e-12)


def test_regret_identity(pairs: Pairs, world: World) -> None:
    """J* − J(π) = β·KL(π‖π*), with its own β per run; NaN where a run has none."""
    rng = np.random.default_rng(2)
    policies, beta = rng.dirichlet(np.ones(4), 4), np.array([0.1, 0.5, 2.0, np.nan])
    got = metrics(pairs, world(policies), kl_strength=beta)
    for r in range(3):

        def objective(p: np.ndarray, b: float = float(beta[r])) -> float:
            return float(p @ REWARD - b * p @ np.log(np.maximum(p, 1e-300) / REF))

        assert got["regret"][r] == pytest.approx(
            objective(gibbs(beta[r])) - objective(policies[r]), abs=1e-10
        )
    assert np.isnan(got["regret"][3])
    assert "regret" not in metrics(pairs, world(policies))


def test_only_prompts_of_the_training_data_count(pairs: Pairs, world: World) -> None:
    ref, reward = np.tile(REF, (2, 1)), np.tile(REWARD, (2, 1))
    policy = [[gibbs(1.0), [0.97, 0.01, 0.01, 0.01]]]
    got = metrics(pairs, world(policy, ref, reward, weight=[[1.0, 0.0]]))
    assert got["kl"][0] == pytest.approx(0.140957, abs=1e-6)
    assert got["frontier_gap"][0] == pytest.approx(0, abs=1e-9)


def test_absent_actions(pairs: Pairs, world: World) -> None:
    """A prompt with two actions beside one with four; what stands off the mask is never read."""
    ref = np.array([REF, [0.5, 0.5, 0, 0]])
    reward = np.array([REWARD, [0, 1, np.nan, np.nan]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    second = gibbs(1.0, np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    got = metrics(
        pairs, world([[gibbs(1.0), [*second, 0, 0]]], ref, reward, mask), kl_strength=np.array([1.0])
    )
    exact = 0.5 * (0.140957 + float(second @ np.log(second / 0.5)))
    assert got["kl"][0] == pytest.approx(exact, abs=1e-6)
    assert got["frontier_gap"][0] == pytest.approx(0, abs=1e-9)
    assert got["regret"][0] == pytest.approx(0, abs=1e-12)
    assert all(np.isfinite(v).all() for v in got.values())


def test_unseen_mass_is_what_no_preference_has_earned(pairs: Pairs, world: World) -> None:
    policies = world([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    seen = np.array([[[True, False, True, False]], [[True, True, True, False]]])
    got = metrics(pairs, replace(policies, seen=seen))["unseen_mass"]
    assert got == pytest.approx([0.2 + 0.4, 0.1])
    assert "unseen_mass" not in metrics(pairs, replace(policies, seen=np.ones_like(seen)))
    assert "unseen_mass" not in metrics(pairs, policies)


def test_small_kl_is_accurate(pairs: Pairs, world: World) -> None:
    tilted = world([gibbs(1e7)])
    got = metrics(pairs, tilted)
    variance = float(REF @ REWARD**2 - (REF @ REWARD) ** 2)
    assert got["kl"][0] == pytest.approx(0.5 * variance * 1e-14, rel=1e-3)


def test_without_reward(pairs: Pairs, world: World) -> None:
    got = metrics(pairs, world([gibbs(1.0)], reward=None), kl_strength=np.array([1.0]))
    assert "kl" in got
    assert not {"gold_reward", "frontier_gap", "regret"} & set(got)
    assert "kl" not in evaluate_point(replace(pairs([-1], [-1])))


def test_monte_carlo_kl() -> None:
    rng = np.random.default_rng(3)
    prompt = np.repeat(np.arange(64), 4)
    effect = rng.normal(0, 1, 64)
    value, se = kl_from_samples(
        effect[prompt], prompt
    )  # all spread is between prompts: 64 observations, not 256
    assert value == pytest.approx(effect.mean())
    assert se == pytest.approx(effect.std(ddof=1) / 8, rel=1e-9)
    one, se_one = kl_from_samples([1.0, 2.0, 3.0], [7, 7, 7])
    assert (one, se_one) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert np.isnan(kl_from_samples([1.0], [0])[1])
