"""The exact frontier against bisection in extended precision, over worlds of every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation, WorldEvaluation
from xpo_bench.metrics import frontier
from xpo_bench.metrics.curve import evaluate_point
from xpo_bench.metrics.frontier import frontier_deficit, frontier_reward

L = np.longdouble
WORLDS, TOGETHER = 2000, 25
SHAPES = [(1, 2), (1, 3), (1, 6), (2, 2), (3, 4)]
"""(prompts, actions): 10,000 worlds in all."""
CYCLING = ([0.02262786, 0.45558995, 0.52178219], [-0.04567724, -1.02378172, -0.84949172])
"""A reference and rewards on which Newton's method without a safeguard ends in a cycle of two points."""


def one_world(kl: Any, ref: Any, reward: Any) -> np.ndarray:
    kl, ref, reward = (
        np.atleast_1d(np.asarray(kl, float)),
        np.atleast_2d(np.asarray(ref, float)),
        np.atleast_2d(reward),
    )
    weight = np.full((len(kl), len(ref)), 1 / len(ref))
    return frontier_reward(kl, np.log(ref), np.ones(ref.shape, bool), np.asarray(reward, float), weight)


def bisected(kl: np.ndarray, ref: np.ndarray, deficit: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The smallest mean deficit of each world, by 100 bisections of ln(1/b) in extended precision: (N,)."""
    scale = deficit.max((1, 2), keepdims=True).astype(L)
    ref, d, weight, kl = ref.astype(L), deficit.astype(L) / scale, weight.astype(L), kl.astype(L)
    ref = ref / ref.sum(-1, keepdims=True)

    def at(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = ref * np.exp(-np.exp(u)[:, None, None] * d)
        total = p.sum(-1, keepdims=True)
        p = p / total
        mean = (weight * (p * d).sum(-1)).sum(-1)
        return -np.exp(u) * mean - (weight * np.log(total[..., 0])).sum(-1), mean  # KL = −E d/b − ln Z

    low, high = np.full(len(kl), L(-40)), np.full(len(kl), L(40))
    for _ in range(100):
        middle = (low + high) / 2
        below = at(middle)[0] < kl
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(at(low)[1] * scale[:, 0, 0], np.float64)


def random_worlds(
    rng: np.random.Generator, prompts: int, actions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """References and rewards (N, P, A) of every kind, and prompts' weights (N, P)."""
    shape = (WORLDS, prompts, actions)
    kind = np.arange(WORLDS)[:, None, None] % 5
    ref = np.where(
        kind == 1,
        rng.dirichlet(np.full(actions, 0.05), shape[:2]),
        rng.dirichlet(np.ones(actions), shape[:2]),
    )
    ref = np.maximum(ref, np.where(kind == 1, 1e-30, 1e-8))  # kind 1: near-deterministic references
    reward = rng.normal(size=shape)
    reward = np.where(kind == 2, np.round(reward) + 1e-9 * rng.normal(size=shape), reward)  # near ties
    reward = np.where(kind == 3, np.round(reward), reward)  # ties
    reward = reward * 10.0 ** rng.integers(-6, 7, (WORLDS, 1, 1))
    reward = np.where(
        kind == 4, reward + 1e3 * np.abs(reward).max((1, 2), keepdims=True), reward
    )  # far from zero
    return ref / ref.sum(-1, keepdims=True), reward, rng.dirichlet(np.ones(prompts), WORLDS)


@pytest.mark.parametrize(("prompts", "actions"), SHAPES)
def test_ten_thousand_worlds(prompts: int, actions: int) -> None:
    rng = np.random.default_rng([prompts, actions])
    ref, reward, weight = random_worlds(rng, prompts, actions)
    deficit = reward.max(-1, keepdims=True) - reward
    with np.errstate(divide="ignore"):
        farthest = (weight * -np.log(np.where(deficit == 0, ref, 0.0).sum(-1))).sum(-1)
    share = np.where(
        np.arange(WORLDS) % 3 == 0, 1 - 10 ** rng.uniform(-12, 0, WORLDS), rng.uniform(0, 1, WORLDS) ** 4
    )
    kl = farthest * np.maximum(share, 1e-7)
    told = np.flatnonzero(deficit.max((1, 2)) > 0)
    want = bisected(kl[told], ref[told], deficit[told], weight[told])
    got = np.full(WORLDS, np.nan)
    for start in range(0, WORLDS, TOGETHER):  # side by side as prompts of one table, each run on its own
        rows = slice(start, start + TOGETHER)
        alone = np.zeros((TOGETHER, TOGETHER, prompts))
        alone[np.arange(TOGETHER), np.arange(TOGETHER)] = weight[rows]
        table = ref[rows].reshape(-1, actions)
        got[rows] = frontier_deficit(
            kl[rows],
            np.log(table),
            np.ones(table.shape, bool),
            deficit[rows].reshape(-1, actions),
            alone.reshape(TOGETHER, -1),
        )
    error = np.abs(got[told] - want) / deficit[told].max((1, 2))
    assert error.max() < 2e-14
    best = (weight * reward.max(-1)).sum(-1)
    lowest = (weight * (ref * reward).sum(-1)).sum(-1)
    rounding = 1e-14 * (np.abs(best) + np.abs(lowest))
    assert (best - got <= best).all()
    assert (best - got >= lowest - rounding).all()


def test_the_cycle_of_newton_s_method() -> None:
    got = one_world([1.2640, 1.26687], *CYCLING)
    np.testing.assert_allclose(got, [-0.46847932, -0.46782070], atol=5e-9)  # where −.782 and +2.309 were seen


def test_rises_with_kl_and_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        ref, reward = rng.dirichlet(np.full(4, 0.3), 2) + 1e-12, rng.normal(size=(2, 4))
        ref /= ref.sum(-1, keepdims=True)
        farthest = float(np.mean([-np.log(ref[i, reward[i].argmax()]) for i in range(2)]))
        kl = np.concatenate([[0.0], farthest * np.geomspace(1e-16, 1.1, 60)])
        got = one_world(kl, ref, reward)
        assert (np.diff(got) >= -1e-15).all()
        assert got[0] == pytest.approx(float((ref * reward).sum(-1).mean()), abs=1e-15)
        assert got[-1] == reward.max(-1).mean()
        slope = np.diff(got) / np.diff(kl)
        assert (np.diff(slope[10:]) <= 1e-9 * slope[10:-1]).all()  # and is concave


def test_both_ends() -> None:
    """KL 0 earns the reference's reward; −log π_ref of the best actions, ties together, earns the largest."""
    ref, reward = np.array([0.2, 0.3, 0.4, 0.1]), np.array([1.0, 2.0, 2.0, 0.0])
    ends = [0.0, -np.log(0.7), -np.log(0.7) + 1e-9, 50.0]
    np.testing.assert_array_equal(one_world(ends, ref, reward)[1:], 2.0)
    assert one_world(ends, ref, reward)[0] == pytest.approx(float(ref @ reward), abs=1e-15)
    assert 2 - 1e-7 < one_world(-np.log(0.7) - 1e-8, ref, reward)[0] < 2
    # near the reference the reward grows by √(2·kl) standard deviations
    spread = np.sqrt(ref @ reward**2 - (ref @ reward) ** 2)
    for kl in (1e-12, 1e-20, 1e-30):
        gain = one_world(kl, ref, reward)[0] - float(ref @ reward)
        assert gain == pytest.approx(spread * np.sqrt(2 * kl), rel=1e-5, abs=1e-15)


def test_constant_rewards_and_a_single_action() -> None:
    assert one_world([0.0, 0.5, 9.0], [0.3, 0.7], [2.0, 2.0]).tolist() == [2.0] * 3
    assert one_world([0.0, 0.5], [1.0], [3.0]).tolist() == [3.0, 3.0]


def test_a_run_is_computed_as_if_alone() -> None:
    rng = np.random.default_rng(6)
    ref, reward, mask = rng.dirichlet(np.ones(5), 7), rng.normal(size=(7, 5)), np.ones((7, 5), bool)
    weight, kl = rng.dirichlet(np.ones(7), 30) * (rng.random((30, 7)) < 0.6), rng.uniform(0, 2, 30)
    together = frontier_reward(kl, np.log(ref), mask, reward, weight)
    alone = [
        frontier_reward(kl[i : i + 1], np.log(ref), mask, reward, weight[i : i + 1])[0] for i in range(30)
    ]
    assert together.tolist() == alone


def test_what_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "ITERATIONS", 2)
    with pytest.raises(ArithmeticError, match=r"frontier at KL 1\.264\S* nats: no convergence in 2 steps"):
        one_world(1.264, *CYCLING)
    with pytest.raises(ValueError, match=r"a KL of -0\.1 nats"):
        one_world(-0.1, *CYCLING)
    assert np.isnan(one_world(np.nan, *CYCLING)).all()


def evaluation(
    logp: np.ndarray, ref: np.ndarray, reward: np.ndarray, beta: float | None = None
) -> Evaluation:
    runs = len(logp)
    rows = np.full((runs, 1), -1.0)
    world = WorldEvaluation(
        logp=logp[:, None],
        ref_logp=np.log(ref)[None],
        mask=np.ones((1, len(ref)), bool),
        reward=reward[None],
        prompt_weight=np.ones((runs, 1)),
    )
    return Evaluation(
        step=0,
        chosen_logp=rows,
        rejected_logp=rows,
        chosen_length=-rows,
        rejected_length=-rows,
        chosen_ref=rows,
        rejected_ref=rows,
        p_chosen=np.full((runs, 1), np.nan),
        valid=np.ones((runs, 1), bool),
        world=world,
        kl_strength=None if beta is None else np.full(runs, beta),
    )


def test_a_policy_above_the_frontier_is_an_error_and_not_a_gap_of_zero() -> None:
    ref, reward = map(np.array, CYCLING)
    sums_to_less_than_one = np.log([[0.0226, 0.2, 0.2]])
    with pytest.raises(ArithmeticError, match="above the exact frontier"):
        evaluate_point(evaluation(sums_to_less_than_one, ref, reward))


def test_gaps_of_the_gibbs_family_are_rounding() -> None:
    """Far below the tolerance that is stated, at any offset and scale of the rewards."""
    rng = np.random.default_rng(7)
    for _ in range(300):
        ref, reward = rng.dirichlet(np.full(4, 0.3)) + 1e-9, rng.normal(size=4) * 10.0 ** rng.integers(-6, 7)
        reward += rng.choice([0.0, 1e3]) * np.ptp(reward)
        ref /= ref.sum()
        logits = np.log(ref) - (reward.max() - reward) / np.ptp(reward) * np.geomspace(1e-6, 1e4, 40)[:, None]
        logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        gap = evaluate_point(evaluation(logp, ref, reward))["frontier_gap"]
        assert gap.max() < 1e-11 * np.ptp(reward)


def test_regret_at_a_large_offset_of_the_rewards() -> None:
    """r/β of 1e8 would leave eight digits of log π_ref."""
    ref, reward = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.5, 1.0, 1.5])
    logits = np.log(ref) + reward / 0.01
    optimum = logits - np.logaddexp.reduce(logits)
    got = evaluate_point(evaluation(optimum[None], ref, reward + 1e6, 0.01))["regret"]
    assert got[0] < 1e-15
