"""EXO, NCA, BCO, AlphaPO and TPO: limits, bounds, optima and gradients that theory gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from loss_checks import random_step
from small_worlds import (
    REFERENCE,
    REWARD,
    TableTools,
    bradley_terry,
    log,
    minimise,
    pair_step,
    population_loss,
    single_step,
)
from torch import Tensor

from xpo_bench import Algorithm, Pair, Scores, Single, Step
from xpo_bench_plugins.algorithms.alphapo import AlphaPO
from xpo_bench_plugins.algorithms.bco import BCO
from xpo_bench_plugins.algorithms.cdpo import CDPO
from xpo_bench_plugins.algorithms.cpo import CPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.exo import EXO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.nca import NCA
from xpo_bench_plugins.algorithms.simpo import SimPO
from xpo_bench_plugins.algorithms.tpo import TPO

HALVES = log((0.5, 0.5))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def at(algorithm: Algorithm, chosen: float, rejected: float) -> tuple[float, list[float]]:
    """Loss of one pair at these log-ratios, and its gradient in both log-probabilities."""
    logp = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    loss = algorithm.loss(pair_step(algorithm, logp, torch.zeros(2, dtype=torch.float64), [0], [1])).sum()
    (gradient,) = torch.autograd.grad(loss, logp)
    return float(loss.detach()), gradient.tolist()


# --------------------------------------------------------------------------- EXO


@pytest.mark.parametrize(("beta", "epsilon"), [(0.1, 1e-3), (1.0, 0.2)])
def test_exo_is_zero_at_a_finite_margin_and_nowhere_else(beta: float, epsilon: float) -> None:
    best = logit(1 - epsilon) / beta
    loss, gradient = at(EXO(beta, epsilon), best, 0)
    assert loss == pytest.approx(0, abs=1e-12)
    assert gradient == pytest.approx([0, 0], abs=1e-12)
    assert all(at(EXO(beta, epsilon), best + away, 0)[0] > 1e-7 for away in (-9.0, -0.5, 0.5, 9.0))


def test_exo_at_the_reference_pulls_by_a_quarter_of_the_wanted_margin() -> None:
    _, gradient = at(EXO(0.1, 1e-3), 0, 0)
    assert gradient == pytest.approx([-0.1 * logit(0.999) / 4, 0.1 * logit(0.999) / 4])


def test_exo_on_contradictory_labels_ends_where_ipo_does() -> None:
    """βΔ = (2p−1) logit(1−ε), which is IPO at τ = β/(2 logit(1−ε)); cDPO's limit is another."""
    beta, epsilon, p = 0.7, 0.05, 0.8
    preference = torch.tensor([[0.5, p], [1 - p, 0.5]], dtype=torch.float64)
    ones = torch.ones(2, 2, dtype=torch.float64)

    def fitted(algorithm: Algorithm) -> float:
        found = minimise(lambda q: population_loss(algorithm, q, HALVES, preference, ones), HALVES)
        return float(found[0] - found[1])

    assert fitted(EXO(beta, epsilon)) == pytest.approx((2 * p - 1) * logit(1 - epsilon) / beta, abs=1e-5)
    tau = beta / (2 * logit(1 - epsilon))
    assert fitted(EXO(beta, epsilon)) == pytest.approx(fitted(IPO(tau)), abs=1e-5)
    assert abs(fitted(EXO(beta, epsilon)) - fitted(CDPO(beta, epsilon))) > 0.3


def test_exo_leaves_pairs_far_on_the_wrong_side_where_cdpo_pulls_hardest() -> None:
    _, lost = at(EXO(1.0, 0.05), -40, 0)
    _, pulled = at(CDPO(1.0, 0.05), -40, 0)
    assert abs(lost[0]) < 1e-14
    assert pulled[0] == pytest.approx(-0.95)


# --------------------------------------------------------------------------- NCA


def test_nca_at_the_reference_pulls_both_sides_by_a_quarter() -> None:
    assert at(NCA(0.4), 0, 0)[1] == pytest.approx([-0.1, 0.1])


def test_nca_holds_the_chosen_completion_at_twice_the_reference() -> None:
    """Its own terms have their minimum at r_w = ln 2, whatever the rejected one does; DPO's have none."""
    for rejected in (-50.0, 0.0, 3.0):
        assert at(NCA(0.4), math.log(2) / 0.4, rejected)[1][0] == pytest.approx(0, abs=1e-12)
        assert at(NCA(0.4), 10.0, rejected)[1][0] > 0 > at(NCA(0.4), -10.0, rejected)[1][0]
    assert at(NCA(0.4), 1, 1)[0] > at(NCA(0.4), 0, 0)[0]  # no function of the difference


def test_population_nca_on_pairs_of_the_reference_is_the_win_rate_tilt() -> None:
    """π(y) = 2 π_ref(y) P(y ≻ π_ref) at β = 1: it sums to 1, since P(π_ref ≻ π_ref) = ½."""
    reference, preference = log(REFERENCE), bradley_terry(REWARD)
    drawn = torch.outer(reference.exp(), reference.exp())
    first, second = (list(side) for side in zip(*[(i, j) for i in range(4) for j in range(4)], strict=True))
    weight = (drawn * preference)[first, second] * 2  # (i, j) and (j, i) both come as i ≻ j

    def loss(logp: Tensor) -> Tensor:
        return (weight * NCA(1.0).loss(pair_step(NCA(1.0), logp, reference, first, second))).sum()

    expected = 2 * reference.exp() * (preference @ reference.exp())
    assert float(expected.sum()) == pytest.approx(1)
    assert minimise(loss, reference).exp().tolist() == pytest.approx(expected.tolist(), abs=1e-6)


# --------------------------------------------------------------------------- BCO


def bco_step(
    rewards: list[float], labels: list[bool], shift: tuple[float, float] = (0.0, 0.0), beta: float = 1.0
) -> Step:
    logp = torch.tensor(rewards, dtype=torch.float64) / beta
    step = single_step(logp, torch.zeros_like(logp), range(len(rewards)), labels)
    state = dict(zip(("desirable", "undesirable"), (torch.tensor([s]).double() for s in shift), strict=True))
    columns = {**step.columns, "match": torch.ones_like(logp)}
    return replace(step, columns=columns, state=state, exact_kl=None)


def test_bco_bounds_dpo_from_above_at_every_shift_and_most_tightly_midway() -> None:
    good, bad = 1.7, 0.9
    dpo = at(DPO(1.0), good, bad)[0]
    shifts = torch.linspace(-2, 4, 121).tolist()
    bounds = [float(BCO(1.0).loss(bco_step([good, bad], [True, False], (s, s))).mean()) for s in shifts]
    assert min(bounds) > dpo
    assert shifts[bounds.index(min(bounds))] == pytest.approx((good + bad) / 2, abs=0.03)


def test_bco_sees_only_what_exceeds_the_shift() -> None:
    one = BCO(1.0).loss(bco_step([1.0, -0.5, 0.2], [True, False, False], (0.3, -0.1)))
    other = BCO(1.0).loss(bco_step([6.0, 4.5, 5.2], [True, False, False], (5.3, 4.9)))
    torch.testing.assert_close(one, other)


def test_bco_is_blind_to_the_balance_of_labels() -> None:
    """Nine copies of the undesirable row change neither the loss of the step nor the shift."""
    few, many = bco_step([1.0, -0.5], [True, False]), bco_step([1.0] + [-0.5] * 9, [True] + [False] * 9)
    assert float(BCO().loss(few).mean()) == pytest.approx(float(BCO().loss(many).mean()))
    for name in ("desirable", "undesirable"):
        torch.testing.assert_close(BCO().next_state(few)[name], BCO().next_state(many)[name])


def test_the_shift_of_bco_is_a_moving_average_of_both_means() -> None:
    algorithm = BCO(1.0, momentum=0.75)
    step = bco_step([2.0, 4.0, -1.0], [True, True, False], (0.0, 1.0))
    state = algorithm.next_state(step)
    assert float(state["desirable"]) == pytest.approx(0.25 * 3)
    assert float(state["undesirable"]) == pytest.approx(0.75 - 0.25)
    alone = algorithm.next_state(bco_step([2.0, 4.0], [True, True], (0.0, 1.0)))
    assert float(alone["undesirable"]) == 1.0  # no row of the label: nothing was learnt


def test_bco_matches_prompts_of_undesirable_rows_to_those_of_desirable_ones() -> None:
    rows = [Single("x", "a", True)] * 3 + [Single("y", "a", True)] + [Single("x", "b", False)] * 2
    rows += [Single("y", "b", False)] * 4 + [Single("z", "b", False)]
    algorithm = BCO(matching="prompt")
    matched = algorithm.shape_data(rows, TableTools())
    weight = algorithm.columns(matched)["match"]
    of = dict.fromkeys("xyz", 0.0)
    for w, e in zip(weight, rows, strict=True):
        of[e.prompt] += w * (not e.desirable)
    assert of == pytest.approx({"x": 7 * 3 / 4, "y": 7 / 4, "z": 0})  # the shares of desirable rows
    pairs = [Single(x, t, good) for x in "xy" for t, good in (("a", True), ("b", False))]
    assert algorithm.columns(algorithm.shape_data(pairs, TableTools()))["match"] == [1.0] * 4
    with pytest.raises(ValueError, match="no prompt has rows of both labels"):
        algorithm.shape_data([Single("x", "a", True), Single("y", "b", False)], TableTools())


# --------------------------------------------------------------------------- AlphaPO


def test_alphapo_at_zero_is_simpo() -> None:
    step = random_step(SimPO())
    simpo = SimPO(beta=2.5, gamma=0.7).loss(step)
    assert torch.equal(AlphaPO(beta=2.5, gamma=0.7, alpha=0.0).loss(step), simpo)
    for alpha in (-1e-6, 1e-6):
        torch.testing.assert_close(AlphaPO(2.5, 0.7, alpha).loss(step), simpo, atol=1e-4, rtol=0)
    assert not torch.allclose(AlphaPO(2.5, 0.7, 0.5).loss(step), simpo, atol=1e-2)


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 2.0])
def test_alphapo_weighs_each_side_by_a_power_of_its_likelihood(alpha: float) -> None:
    """ds/d log p = p^(−α): the two gradients of a pair stand in that ratio."""
    _, gradient = at(AlphaPO(2.0, 1.0, alpha), -1.5, -0.3)
    assert gradient[0] / gradient[1] == pytest.approx(-((math.exp(-1.5) / math.exp(-0.3)) ** -alpha))


def test_alphapo_is_finite_where_a_power_of_a_probability_is_not() -> None:
    logp = torch.tensor([-3000.0, -2000.0], requires_grad=True)
    loss = AlphaPO().loss(pair_step(AlphaPO(), logp, torch.zeros(2), [0], [1])).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert logp.grad is not None
    assert bool(torch.isfinite(logp.grad).all())
    assert float(logp.grad[0]) < 0
    assert math.isinf(float(torch.exp(logp.detach()[0]).pow(-0.25)))  # the formula as written


# --------------------------------------------------------------------------- TPO


def tpo_step(algorithm: TPO, pairs: list[Pair]) -> Step:
    """Scores of one to three tokens, by text."""
    mask = torch.ones(1, 3, dtype=torch.bool)

    def scores(text: str) -> Tensor:
        return -torch.tensor([[0.3, 0.7, 1.1]], dtype=torch.float64) * (1 + ord(text) - ord("a"))

    return Step(
        {
            group: Scores(torch.cat([scores(c.text) for c in items]), mask.expand(len(items), 3))
            for group, items in algorithm.completions(pairs).items()
        }
    )


def test_tpo_with_one_pair_per_prompt_is_cpo() -> None:
    pairs = [Pair("x", "a", "b"), Pair("y", "c", "a")]
    for gold in ("best", "chosen"):
        algorithm: Any = TPO(beta=0.3, gold_weight=0.6, gold=gold)
        step = tpo_step(algorithm, pairs)
        torch.testing.assert_close(algorithm.loss(step), CPO(0.3, 0.6).loss(step))


def test_tpo_per_token_without_gold_is_simpo() -> None:
    step = tpo_step(TPO(), [Pair("x", "a", "b"), Pair("y", "c", "a")])
    algorithm = TPO(beta=2.0, gold_weight=0.0, gamma=0.5, normalize="tokens")
    torch.testing.assert_close(algorithm.loss(step), SimPO(2.0, 0.5).loss(step))


def test_the_gold_completion_of_tpo_is_the_one_that_wins_most() -> None:
    ranked = [Pair("x", "a", "b"), Pair("x", "b", "c"), Pair("x", "a", "c"), Pair("y", "c", "b")]
    tools = TableTools()
    assert TPO().shape_data(ranked, tools) == ranked
    assert tools.notes["gold_is_chosen"] == 3 / 4
    assert [c.text for c in TPO().completions(ranked)["gold"]] == ["a", "a", "a", "c"]
    cycle = [Pair("x", "a", "b"), Pair("x", "b", "c"), Pair("x", "c", "a")]
    assert [c.text for c in TPO().completions(cycle)["gold"]] == ["a", "b", "c"]  # nobody wins more
