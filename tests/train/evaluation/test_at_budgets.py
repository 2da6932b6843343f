"""Which evaluations are read at a budget of KL, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from xpo_bench.contract.metric import Array, History, WorldEvaluation
from xpo_bench.train.evaluation.at_budgets import AtBudgets

NAN = np.nan
REF = np.log(np.array([[0.5, 0.3, 0.2]]))


def history(steps: list[float], **series: list[float]) -> History:
    """The curve of one run."""
    columns = {name: np.array(values, dtype=np.float64)[:, None] for name, values in series.items()}
    return History(np.array(steps), columns, np.ones((len(steps), 1), bool))


def world(logp: Array) -> WorldEvaluation:
    return WorldEvaluation(
        logp=logp[None],
        ref_logp=REF,
        mask=np.ones((1, 3), bool),
        reward=np.array([[0.0, 1.0, 2.0]]),
        prompt_weight=np.ones((1, 1)),
    )


def test_a_language_model_is_read_where_it_was_sampled_and_scored() -> None:
    """KL is known at more points than held-out accuracy is, and win rates at others still."""
    along = history([0, 1, 2, 4], kl=[0.0, 0.2, 0.6, 2.0], win_rate=[0.5, NAN, 0.8, 0.6])
    heldout = history([0, 2, 4], reward_accuracy=[0.5, 0.8, 0.6], accuracy_lc=[NAN, NAN, NAN])
    read = AtBudgets(False, NAN, None)
    reached = read.reached(along, heldout)
    found = read.accuracies(reached, heldout)
    # between steps 0 and 2, between 2 and 4, and at the end, which it never leaves
    assert [float(found[f"accuracy_at_{b}"][0]) for b in ("0.3", "1", "3")] == pytest.approx(
        [0.65, 0.8 - 0.2 * 0.4 / 1.4, 0.6]
    )
    wins = read.win_rates(along)
    assert float(wins["win_rate_at_0.3"][0]) == pytest.approx(0.65)
    assert read.attained(along, None) == {}


def test_accuracy_is_length_controlled_where_both_kinds_of_pairs_are_there() -> None:
    along = history([0, 1], kl=[0.0, 1.0])
    heldout = history([0, 1], reward_accuracy=[0.5, 0.9], accuracy_lc=[0.5, 0.7])
    read = AtBudgets(False, NAN, None)
    found = read.accuracies(read.reached(along, heldout), heldout)
    assert float(found["accuracy_at_1"][0]) == 0.7


def test_without_kl_nothing_is_read() -> None:
    curve = history([0, 1], reward_accuracy=[0.5, 0.9], win_rate=[0.5, 0.6])
    read = AtBudgets(False, 0.1, world(REF))
    assert read.reached(curve, curve) == {}
    assert read.accuracies({}, curve) == {}
    assert read.win_rates(curve) == {}
    assert read.attained(curve, world(REF)) == {}


@pytest.mark.parametrize("closed", [True, False])
def test_a_solution_that_is_no_policy_attains_nothing(closed: bool) -> None:
    read = AtBudgets(closed, 0.1, world(REF))
    assert read.budget_kl is not None
    broken = history([0, 1], kl=[NAN, NAN], gold_reward=[NAN, NAN])
    found = read.attained(broken, world(np.full((1, 3), NAN)))
    assert sorted(found) == ["attained", "attained_0.3", "attained_1", "attained_3"]
    assert all(np.isnan(values).all() for values in found.values())


def test_the_own_budget_is_that_of_the_stated_beta() -> None:
    """At β the optimum's KL: in closed form, over one prompt."""
    for beta in (0.5, 2.0):
        weight = np.exp(REF[0] + np.array([0.0, 1.0, 2.0]) / beta)
        p = weight / weight.sum()
        found = AtBudgets(False, beta, world(REF)).budget_kl
        assert found is not None
        assert float(found[0]) == pytest.approx(float(p @ (np.log(p) - REF[0])), rel=1e-12)
