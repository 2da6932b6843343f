"""What was attained within a budget of KL, by identities on exact worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Array, WorldEvaluation
from xpo_bench.metrics.attained import (
    BUDGETS,
    Bounds,
    accuracy_at_1,
    attained,
    attained_03,
    attained_1,
    best_of_sweep,
    best_within,
    bounds_at,
    gained,
    sweep,
    where_reached,
    win_rate_at_3,
)
from xpo_bench.metrics.frontier import frontier_reward
from xpo_bench.metrics.kl import weighted, world_kl

World = Callable[..., WorldEvaluation]
RNG = np.random.default_rng


def rewarded(world: WorldEvaluation) -> Array:
    assert world.reward is not None
    return world.reward


def point(world: WorldEvaluation) -> tuple[Array, Array]:
    """KL and reward of every run."""
    p = np.exp(world.logp)
    return world_kl(world), weighted(world, (p * rewarded(world)).sum(-1))


def gibbs(ref: Array, reward: Array, b: float) -> Array:
    """π_ref·exp(r/b), normalised, shape (P, A)."""
    weight = np.log(ref) + (reward - reward.max(-1, keepdims=True)) / b
    p = np.exp(weight - weight.max(-1, keepdims=True))
    return np.asarray(p / p.sum(-1, keepdims=True))


def at(world: WorldEvaluation, path: tuple[Array, Array], budget: float) -> Array:
    bounds = bounds_at(world, rewarded(world), np.full(len(world.logp), budget))
    return attained(*path, bounds)


def random_world(world: World, seed: int, runs: int = 1, prompts: int = 3, actions: int = 5) -> Any:
    rng = RNG(seed)
    ref, reward = rng.dirichlet(np.ones(actions), prompts), rng.normal(0, 3, (prompts, actions))
    weight = rng.dirichlet(np.ones(prompts), runs)
    return world(np.tile(ref, (runs, 1, 1)), ref, reward, weight=weight), ref, reward


@pytest.mark.parametrize("seed", range(5))
def test_a_path_of_exact_optima_attains_everything_up_to_its_end(world: World, seed: int) -> None:
    initial, ref, reward = random_world(world, seed)
    points = [point(initial)]
    points += [
        point(replace(initial, logp=np.log(gibbs(ref, reward, b))[None]))
        for b in np.geomspace(1e3, 0.05, 4000)
    ]
    kl, earned = (np.stack(side) for side in zip(*points, strict=True))
    end = float(kl[-1, 0])
    # at an optimum itself nothing is lost; between two of them the line lies below the frontier
    for k in (500, 1500, 2500, 3999):
        assert at(initial, (kl, earned), float(kl[k, 0]) * (1 + 1e-12)) == pytest.approx(1, abs=1e-9)
    for budget in (0.1, *BUDGETS):
        if budget <= end:
            assert at(initial, (kl, earned), budget) == pytest.approx(1, abs=1e-4)


def test_standing_still_attains_nothing(world: World) -> None:
    initial, _, _ = random_world(world, 0, runs=2)
    kl, earned = point(initial)
    path = np.stack([kl] * 3), np.stack([earned] * 3)
    for budget in BUDGETS:
        assert (at(initial, path, budget) == 0).all()
    # nor does a run that makes things worse: its path begins at the reference
    worse = np.stack([kl, kl + 0.2]), np.stack([earned, earned - 1.0])
    assert (at(initial, worse, 1.0) == 0).all()


@pytest.mark.parametrize("seed", range(30))
def test_no_path_attains_more_than_the_frontier(world: World, seed: int) -> None:
    rng = RNG(100 + seed)
    runs = 4
    initial, _, _ = random_world(world, seed, runs=runs, prompts=1 + seed % 4, actions=2 + seed % 5)
    offset = 10.0 ** rng.integers(-3, 6) * (seed % 3)
    initial = replace(initial, reward=rewarded(initial) + offset)
    points = [point(initial)]
    for _ in range(20):
        steps = rng.normal(0, rng.uniform(0.1, 3), initial.logp.shape)
        logp = initial.logp + steps
        logp = logp - np.logaddexp.reduce(logp, -1, keepdims=True)
        points.append(point(replace(initial, logp=logp)))
    kl, earned = (np.stack(side) for side in zip(*points, strict=True))
    for budget in (1e-3, 0.05, *BUDGETS):
        found = at(initial, (kl, earned), budget)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (found <= 1 + 1e-9).all()
        # it is no more than what the bound says beneath it
        best = best_within(kl, earned, np.full(runs, budget))
        top = frontier_reward(
            np.full(runs, budget), initial.ref_logp, initial.mask, rewarded(initial), initial.prompt_weight
        )
        assert (best <= top + 1e-9 * max(1.0, abs(offset))).all()


def test_a_path_above_the_frontier_is_an_error(world: World) -> None:
    initial, _, _ = random_world(world, 1)
    kl, earned = point(initial)
    with pytest.raises(ArithmeticError, match="above the exact frontier"):
        at(initial, (np.stack([kl, kl + 0.1]), np.stack([earned, earned + 100])), 1.0)


def test_the_path_is_followed_up_to_the_budget_in_either_direction() -> None:
    kl = np.array([[0.0], [2.0], [0.5], [4.0]])
    reward = np.array([[0.0], [1.0], [3.0], [10.0]])
    for budget, want in (
        (0.2, 0.1),  # on the way out: 0 + (0.2/2)·1
        (0.5, 3.0),  # the third evaluation lies at it
        (1.0, 4.0),  # between the third and the last: 3 + (.5/3.5)·7
        (4.0, 10.0),
        (9.0, 10.0),
    ):
        assert best_within(kl, reward, np.array([budget])) == pytest.approx(want)
    # on the way back, where the way out earned nothing
    assert best_within(
        np.array([[0.0], [2.0], [0.5]]), np.array([[0.0], [0.0], [6.0]]), np.array([1.0])
    ) == pytest.approx(6.0)
    assert best_within(
        np.array([[0.0], [0.9], [3.0]]), np.array([[0.0], [-5.0], [-5.0]]), np.array([1.0])
    ) == pytest.approx(0.0)


def test_an_unknown_evaluation_is_passed_over() -> None:
    nan = np.nan
    kl, reward = np.array([[0.0], [nan], [2.0]]), np.array([[0.0], [nan], [4.0]])
    assert best_within(kl, reward, np.array([1.0])) == pytest.approx(2.0)
    assert np.isnan(best_within(np.full((3, 1), nan), np.full((3, 1), nan), np.array([1.0]))).all()


@pytest.mark.parametrize("seed", range(5))
def test_rlhf_with_the_true_reward_attains_everything(world: World, seed: int) -> None:
    initial, ref, reward = random_world(world, seed)
    solved = replace(initial, logp=np.log(gibbs(ref, reward, 0.1))[None])
    path = sweep(solved, reward)
    budget_kl = world_kl(solved)
    for budget in (np.array([b]) for b in (1e-6, 0.1, *BUDGETS, float(budget_kl[0]))):
        if (budget <= budget_kl).all():
            best = best_of_sweep(path, solved, reward, budget)
            assert gained(best, bounds_at(solved, reward, budget)) == pytest.approx(1, abs=1e-9)


def test_the_sweep_of_a_wrong_reward_turns_back(world: World) -> None:
    """Its best within a budget is not where KL is used up: the maximum is along the path."""
    ref = np.full((1, 3), 1 / 3)
    reward = np.array([[0.0, 1.0, 0.5]])
    solved = world([[1e-9, 0.25, 0.75 - 1e-9]], ref, reward)
    path = sweep(solved, reward)
    best = best_of_sweep(path, solved, reward, np.array([10.0]))
    assert best[0] == path.reward.max() > path.reward[-1, 0]


def test_nothing_to_be_had_is_absent(world: World) -> None:
    constant = world([[0.4, 0.3, 0.2, 0.1]], reward=np.full(4, 2.0))
    kl, earned = point(constant)
    assert np.isnan(at(constant, (kl[None], earned[None]), 1.0)).all()
    initial, _, _ = random_world(world, 0)
    kl, earned = point(initial)
    assert np.isnan(at(initial, (kl[None], earned[None]), 0.0)).all()


def test_runs_that_share_a_frontier_are_computed_as_alone(world: World) -> None:
    initial, _, reward = random_world(world, 3, runs=4)
    weight = initial.prompt_weight[[0, 1, 0, 1]]
    together = replace(initial, prompt_weight=weight)
    found = bounds_at(together, reward, np.array([1.0, 1.0, 1.0, 0.3]))
    for r in range(4):
        alone = replace(together, logp=initial.logp[[r]], prompt_weight=weight[[r]])
        one = bounds_at(alone, reward, np.array([[1.0, 1.0, 1.0, 0.3][r]]))
        assert [float(part[r]) for part in found] == [float(part[0]) for part in one]


def test_where_a_kl_is_first_reached() -> None:
    nan = np.nan
    kl = np.array([[0.0, 0.0, nan, 0.0], [2.0, 0.1, nan, 1.0], [0.5, 0.2, nan, nan], [4.0, 0.3, nan, 3.0]])
    values = np.array(
        [[0.5, 0.5, 0.5, 0.5], [0.9, 0.6, 0.5, 0.7], [0.1, 0.7, 0.5, 0.0], [0.3, 0.8, 0.5, 1.0]]
    )
    found = where_reached(kl, 1.0)
    # half of the way to the second; never, so the end; no path; at an evaluation itself
    np.testing.assert_allclose(found.of(values), [0.7, 0.8, nan, 0.7])
    np.testing.assert_allclose(accuracy_at_1(kl, values), [0.7, 0.8, nan, 0.7])
    # across one that is not known
    np.testing.assert_allclose(win_rate_at_3(kl, values), [0.1 + 0.2 * 2.5 / 3.5, 0.8, nan, 1.0])
    items = np.stack([values, 1 - values], -1)
    np.testing.assert_allclose(found.of(items)[:, 1], [0.3, 0.2, nan, 0.3])


def test_the_named_budgets_are_the_one_metric() -> None:
    kl, reward = np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]])
    bounds = Bounds(*(np.array([v]) for v in (1.0, 0.0, 4.0, 0.0, 0.0)))
    assert attained_1(kl, reward, bounds) == attained_03(kl, reward, bounds) == 0.5
