"""Exploitability and Borda scores against a linear program and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from xpo_bench import World
from xpo_bench.contract.metric import Evaluation
from xpo_bench.data.preferences import preference, preference_matrix
from xpo_bench.errors import DataError
from xpo_bench.metrics.curve import evaluate_point

CYCLE = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]])
"""P(row ≻ column) of a ≻ b at .9, b ≻ c at .8, c ≻ a at .7."""
NASH = (0.3, 0.2, 0.4)
"""Of three actions in a cycle each is played by what the other two win of one another; times 10/9."""

Pairs = Callable[..., Evaluation]
Worlds = Callable[..., Any]


def nash(matrix: np.ndarray) -> np.ndarray:
    """The maximin policy of P − ½, by linear programming: maximise v with πᵀ(P − ½) ≥ v for every action."""
    n = len(matrix)
    found = linprog(
        [*np.zeros(n), -1.0],
        A_ub=np.column_stack([-(matrix - 0.5).T, np.ones(n)]),
        b_ub=np.zeros(n),
        A_eq=[[*np.ones(n), 0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
    )
    assert found.success
    solution: np.ndarray = np.array(found.x)
    return solution[:n]


def random_game(rng: np.random.Generator, actions: int) -> np.ndarray:
    upper = np.triu(rng.uniform(size=(actions, actions)), 1)
    return np.asarray(upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(actions))


def measured(pairs: Pairs, world: Any, matrix: Any) -> dict[str, np.ndarray]:
    runs, stated = len(world.logp), np.asarray(matrix, float)
    ev = pairs(np.full((runs, 1), -1.0), np.full((runs, 1), -1.0), world=replace(world, preference=stated))
    return evaluate_point(ev)


def test_the_nash_policy_of_the_asymmetric_cycle_cannot_be_exploited(pairs: Pairs, world: Worlds) -> None:
    policy = np.array(NASH) / sum(NASH)
    np.testing.assert_allclose(nash(CYCLE), policy, atol=1e-9)
    np.testing.assert_allclose(policy, (0.3333, 0.2222, 0.4444), atol=1e-4)
    uniform = [1 / 3] * 3
    got = measured(pairs, world([policy, uniform, [1, 0, 0]], uniform, None), CYCLE[None])
    # against the uniform policy a wins (.5 + .9 + .3)/3; against a alone c wins .7
    np.testing.assert_allclose(got["exploitability"], [0, 1.7 / 3 - 0.5, 0.2], atol=1e-15)
    np.testing.assert_allclose(got["borda"], [float(policy @ (0.6, 0.45, 0.45)), 0.5, 0.6], atol=1e-15)


def test_exploitability_is_zero_at_the_solution_of_a_linear_program_and_above_it_elsewhere(
    pairs: Pairs, world: Worlds
) -> None:
    rng = np.random.default_rng(0)
    for actions in (2, 3, 5, 8):
        game = random_game(rng, actions)
        other = rng.dirichlet(np.ones(actions))
        policies = np.maximum([nash(game), other], 1e-300)
        got = measured(pairs, world(policies, np.ones(actions) / actions, None), game[None])
        # brute force: what every pure answer wins against the policy
        answers = [max(sum(other[j] * game[i, j] for j in range(actions)) for i in range(actions)) - 0.5]
        assert got["exploitability"][0] == pytest.approx(0, abs=1e-9)
        assert got["exploitability"][1] == pytest.approx(answers[0], abs=1e-12)
        assert got["exploitability"][1] > 0


def test_both_average_over_the_prompts_that_count_and_leave_out_absent_actions(
    pairs: Pairs, world: Worlds
) -> None:
    coin = np.full((3, 3), 0.5)
    coin[0, 1], coin[1, 0] = 0.8, 0.2  # a prompt of two actions; the third is absent
    mask = np.array([[True, True, True], [True, True, False], [True, True, True]])
    logp = [[[1, 1e-300, 1e-300], [0.25, 0.75, 1e-300], [1 / 3] * 3]]
    weight = [[0.5, 0.5, 0.0]]
    ref = [[1 / 3] * 3, [0.5, 0.5, 1.0], [1 / 3] * 3]
    there = world(logp, ref, None, mask, weight)
    got = measured(pairs, there, [CYCLE, coin, CYCLE])
    # the first action wins .25·.5 + .75·.8 against (¼, ¾)
    assert got["exploitability"][0] == pytest.approx(0.5 * 0.2 + 0.5 * (0.25 * 0.5 + 0.75 * 0.8 - 0.5))
    assert got["borda"][0] == pytest.approx(0.5 * 0.6 + 0.5 * (0.25 * 0.8 + 0.75 * 0.2))


def test_worlds_without_a_general_preference_have_neither(pairs: Pairs, world: Worlds) -> None:
    got = evaluate_point(pairs([-1.0], [-1.0], world=world([[0.4, 0.3, 0.2, 0.1]])))
    assert not {"exploitability", "borda"} & got.keys()
    assert preference_matrix(World(actions={"x": ("a", "b")}), ["x"]) is None


STATED = {"x": {("a", "b"): 0.9, ("c", "b"): 0.2, ("c", "a"): 0.7}}


def test_a_preference_is_stated_once_and_answers_in_both_directions() -> None:
    world = World(actions={"x": ("a", "b", "c")}, preference=STATED)
    assert preference(world, "x", "a", "b") == 0.9
    assert preference(world, "x", "b", "a") == pytest.approx(0.1)
    matrix = preference_matrix(world, ["x"])
    assert matrix is not None
    np.testing.assert_allclose(matrix[0], CYCLE)


def test_without_one_the_reward_decides() -> None:
    world = World(actions={"x": ("a", "b")}, reward={"x": {"a": 1.0, "b": 0.0}})
    assert preference(world, "x", "a", "b") == pytest.approx(0.7310585786300049)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"x": {("a", "b"): 0.9}}, "no preference is stated of 'a' and 'c'"),
        ({"x": {**STATED["x"], ("a", "b"): 1.2}}, "is 1.2; want one in"),
        ({"y": STATED["x"]}, "prompt 'x' has no preference while others have"),
    ],
)
def test_half_a_preference_is_refused(stated: dict[str, dict[tuple[str, str], float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        preference_matrix(World(actions={"x": ("a", "b", "c")}, preference=stated), ["x"])
    with pytest.raises(DataError, match="neither a preference nor a reward"):
        preference(World(actions={"x": ("a", "b")}), "x", "a", "b")
