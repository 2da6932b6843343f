"""Fitted rewards and rankers: stationarity, worked values, and what a ranker can say that a reward cannot."""

from __future__ import annotations

import math

import pytest

from xpo_bench import Completion, Pair
from xpo_bench.policy import reward_model
from xpo_bench.policy.reward_model import MAX_REWARD, fit_ranker, fit_table

A, B, C = (Completion("x", text) for text in "abc")


def pairs(*orders: str) -> list[Pair]:
    return [Pair("x", *order) for order in orders]


def test_reward_recovers_the_log_odds_of_contradictory_labels() -> None:
    a, b = fit_table(pairs(*["ab"] * 8, *["ba"] * 2), 0.0)([A, B])
    assert a - b == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.parametrize("decay", [0.01, 0.1, 1.0])
def test_penalised_reward_is_stationary_on_a_certain_preference(decay: float) -> None:
    """∂/∂r_a of −log σ(r_a − r_b) + decay/2 (r_a² + r_b²): σ(−d) = decay·d/2 with d = r_a − r_b."""
    a, b = fit_table(pairs("ab"), decay)([A, B])
    assert a == pytest.approx(-b, abs=1e-6)
    assert 1 / (1 + math.exp(a - b)) == pytest.approx(decay * (a - b) / 2, rel=1e-4)


def test_unpenalised_reward_of_a_certain_preference_is_large_but_bounded() -> None:
    a, b = fit_table(pairs("ab"), 0.0)([A, B])
    assert 15 < a - b <= 2 * MAX_REWARD


def test_unmentioned_completions_have_reward_zero() -> None:
    assert fit_table(pairs("ab"), 0.1)([C, Completion("y", "a")]) == [0.0, 0.0]


def test_a_ranker_holds_a_cycle_where_a_reward_says_nothing() -> None:
    cycle = pairs("ab", "bc", "ca")
    assert fit_table(cycle, 0.1)([A, B, C]) == pytest.approx([0, 0, 0], abs=1e-6)
    odds = fit_ranker(cycle, 0.1)
    forward, backward = odds([A, B, C], [B, C, A]), odds([B, C, A], [A, B, C])
    for s in forward:  # each margin is stationary on its own: σ(−s)/3 = decay·s
        assert 1 / (1 + math.exp(s)) / 3 == pytest.approx(0.1 * s, rel=1e-4)
    assert backward == pytest.approx([-f for f in forward])
    assert odds([A], [A]) == [0.0]


def test_ranker_recovers_log_odds() -> None:
    assert fit_ranker(pairs(*["ab"] * 3, "ba"), 0.0)([A], [B])[0] == pytest.approx(math.log(3), abs=1e-6)


def test_a_fit_that_has_not_converged_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_model, "ITERATIONS", 1)
    with pytest.raises(
        ArithmeticError, match=r"the fit of a reward has not converged: gradient \S+ after 1 steps"
    ):
        fit_table(pairs(*["ab"] * 3, "ba", "bc"), 0.01)
