"""Identities of losses near DPO: apo_zero, apo_down, rpo, wpo and chi_po."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_checks import random_step
from scipy.optimize import brentq
from scipy.special import lambertw
from small_worlds import (
    REFERENCE,
    REWARD,
    bradley_terry,
    descend,
    log,
    mean_loss,
    minimise,
    pair_step,
    population_loss,
    single_step,
)
from torch import Tensor

from xpo_bench import Algorithm, Scores, Step
from xpo_bench_plugins.algorithms.apo_down import APODown
from xpo_bench_plugins.algorithms.apo_zero import APOZero
from xpo_bench_plugins.algorithms.chi_po import ChiPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.rpo import RPO
from xpo_bench_plugins.algorithms.sft import SFT
from xpo_bench_plugins.algorithms.wpo import WPO

BETA = 0.3
ONES = torch.ones(4, 4, dtype=torch.float64)


def pulls(algorithm: Algorithm, chosen: float, rejected: float) -> tuple[float, float, float]:
    """Loss, and its derivative with respect to the log-ratio of either side, at given log-ratios."""
    logp = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    value = algorithm.loss(pair_step(algorithm, logp, torch.zeros(2, dtype=torch.float64), [0], [1])).sum()
    (slope,) = torch.autograd.grad(value, logp)
    return float(value.detach()), *slope.tolist()


def fitted(algorithm: Algorithm) -> Tensor:
    """The table that minimises the expected loss under Bradley–Terry preferences of all pairs."""
    reference, preference = log(REFERENCE), bradley_terry(REWARD)
    return minimise(lambda p: population_loss(algorithm, p, reference, preference, ONES), reference)


def per_token(step: Step, change: Tensor | float) -> Step:
    """The step with a number added to every log-probability of the policy's tokens."""
    return replace(step, policy={g: Scores(s.token_logps + change, s.mask) for g, s in step.policy.items()})


# --------------------------------------------------------------------------- APO


def test_apo_zero_is_both_halves_of_kto_at_a_reference_point_of_zero() -> None:
    logp, reference = log((0.1, 0.2, 0.3, 0.4)), log(REFERENCE)
    halves = single_step(logp, reference, [3, 0], [True, False])
    halves = replace(halves, exact_kl=torch.zeros(2, dtype=torch.float64))
    pair = pair_step(APOZero(BETA), logp, reference, [3], [0])
    torch.testing.assert_close(APOZero(BETA).loss(pair).sum(), KTO(BETA).loss(halves).sum())


def test_gradients_of_apo_at_the_reference() -> None:
    assert pulls(APOZero(BETA), 0, 0) == pytest.approx((1, -BETA / 4, BETA / 4))
    # the two terms cancel in the chosen completion
    assert pulls(APODown(BETA), 0, 0) == pytest.approx((1, 0, BETA / 4))


@pytest.mark.parametrize("far", [-60.0, 60.0])
def test_apo_zero_leaves_alone_what_has_moved_far(far: float) -> None:
    _, chosen, rejected = pulls(APOZero(1.0), far, 0.5)
    assert abs(chosen) < 1e-20
    # sides do not see each other
    assert rejected == pytest.approx(pulls(APOZero(1.0), 0, 0.5)[2])


@pytest.mark.parametrize(
    ("chosen", "rejected"), [(0.5, 0.3), (0.5, -2.0), (-0.5, -3.0), (-0.5, -0.7), (1.0, 3.0), (0.2, 0.1)]
)
def test_apo_down_lowers_the_chosen_where_the_margin_outweighs_its_anchor(
    chosen: float, rejected: float
) -> None:
    """σ′ falls with the distance from 0: the nearer of the two sigmoids decides."""
    _, slope, below = pulls(APODown(BETA), chosen, rejected)
    assert (slope > 0) == (abs(chosen - rejected) > abs(chosen))
    assert below > 0


def test_apo_down_lowers_both_completions_and_apo_zero_one() -> None:
    thirds = log((1 / 3, 1 / 3, 1 / 3))
    down = descend(mean_loss(APODown(0.5), thirds, [(0, 1)]), thirds, 2.0, 400)[-1] - thirds
    zero = descend(mean_loss(APOZero(0.5), thirds, [(0, 1)]), thirds, 2.0, 400)[-1] - thirds
    assert float(down[1]) < float(down[0]) < 0 < float(down[2])
    assert float(zero[1]) < 0 < float(zero[0])


# --------------------------------------------------------------------------- RPO


def test_rpo_without_likelihood_is_dpo_and_its_two_forms_differ_by_the_length() -> None:
    step = random_step(DPO(), tokens=5)
    for form in ("mean", "sum"):
        torch.testing.assert_close(RPO(BETA, 0.0, form).loss(step), DPO(BETA).loss(step))
    length = step.policy["chosen"].length
    likelihoods = [RPO(BETA, 1.0, form).loss(step) - DPO(BETA).loss(step) for form in ("mean", "sum")]
    torch.testing.assert_close(likelihoods[0] * length, likelihoods[1])
    torch.testing.assert_close(likelihoods[0], SFT().loss(step))


def test_rpo_goes_from_dpo_to_imitation_of_the_chosen() -> None:
    preference = bradley_terry(REWARD)
    share = (preference.sum(1) - 0.5) / (preference.sum() - 2.0)  # who is chosen, over pairs of two actions
    torch.testing.assert_close(fitted(RPO(0.5, 1e6)).exp(), share, atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted(RPO(0.5, 1e-9)), fitted(DPO(0.5)), atol=1e-5, rtol=0)
    middle = fitted(RPO(0.5, 1.0)).exp()
    assert float((middle - share).abs().max()) > 0.01
    assert float((middle - fitted(DPO(0.5)).exp()).abs().max()) > 0.01


# --------------------------------------------------------------------------- WPO


class ThroughTheWeights(WPO):
    def loss(self, step: Step) -> Tensor:
        weight = (step.policy["chosen"].mean + step.policy["rejected"].mean).exp()
        return -weight * torch.nn.functional.logsigmoid(self._logit(step))


def slope_of_both(algorithm: Algorithm, step: Step) -> float:
    """Derivative of the loss when the policy's log-probabilities and the reference's rise together."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = per_token(step, shift)
    moved = replace(
        moved, reference={g: Scores(s.token_logps + shift, s.mask) for g, s in step.reference.items()}
    )
    value = algorithm.loss(moved).sum()
    return float(torch.autograd.grad(value, shift, allow_unused=True)[0] or 0.0)


def test_the_weights_of_wpo_carry_no_gradient() -> None:
    step = random_step(WPO())
    assert slope_of_both(WPO(BETA), step) == pytest.approx(0, abs=1e-12)
    assert abs(slope_of_both(ThroughTheWeights(BETA), step)) > 1e-3
    # of a policy that is certain of every token the weight is 1
    certain = {g: Scores(torch.zeros_like(s.token_logps), s.mask) for g, s in step.policy.items()}
    sure = replace(step, policy=certain)
    torch.testing.assert_close(WPO(BETA).loss(sure), DPO(BETA).loss(sure))


def test_the_weight_of_wpo_is_a_probability_per_token() -> None:
    """Half of the probability of every token is a quarter of the weight of a pair, at any length."""
    step = random_step(WPO(), n=20)
    lower = per_token(step, -math.log(2))
    both = replace(
        lower,
        reference={g: Scores(s.token_logps - math.log(2), s.mask) for g, s in step.reference.items()},
    )
    torch.testing.assert_close(WPO(BETA).loss(both), WPO(BETA).loss(step) / 4)
    assert bool((WPO(BETA).loss(step) < DPO(BETA).loss(step)).all())


# --------------------------------------------------------------------------- χPO


def test_chi_po_near_the_reference_is_dpo_at_twice_the_strength() -> None:
    assert pulls(ChiPO(BETA), 0, 0) == pytest.approx(pulls(DPO(2 * BETA), 0, 0))
    assert pulls(ChiPO(BETA), 0, 0)[0] == pytest.approx(math.log(2))
    errors = [
        float((fitted(ChiPO(beta)).exp() - fitted(DPO(2 * beta)).exp()).abs().max()) for beta in (5.0, 10.0)
    ]
    assert errors[1] < 0.3 * errors[0]  # what is left is of second order in r/β
    assert errors[1] < 1e-3


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_optimum_of_chi_po_by_lambert_s_function(beta: float) -> None:
    """z + ln z = (r − λ)/β has the solution z = W(exp((r − λ)/β)); λ makes π sum to 1."""

    def ratio(shift: float) -> np.ndarray:
        return np.array([lambertw(math.exp((r - shift) / beta)).real for r in REWARD])

    shift = brentq(lambda s: float(ratio(s) @ np.array(REFERENCE)) - 1, -10, 10, xtol=1e-14)
    expected = np.array(REFERENCE) * ratio(shift)
    assert expected.sum() == pytest.approx(1)
    assert fitted(ChiPO(beta)).exp().tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_chi_po_gives_a_rare_action_less_than_dpo() -> None:
    """Of equal strength near the reference, at a reward that is large against it."""
    reference = log((0.5, 0.49, 0.01))
    preference = bradley_terry((0.0, 0.0, 3.0))
    rare = {
        a.name: float(
            minimise(
                lambda p, a=a: population_loss(a, p, reference, preference, ONES[:3, :3]),  # type: ignore[misc]
                reference,
            )[2].exp()
        )
        for a in (ChiPO(0.25, 50.0), DPO(0.5))
    }
    # e^{3/.5} = 403 times the odds under DPO; about 3/.25 = 12 times the probability here
    assert rare["dpo"] > 0.75
    assert 0.05 < rare["chi_po"] < 0.12


@pytest.mark.parametrize("sign", [1, -1])
def test_beyond_the_clip_nothing_pulls(sign: int) -> None:
    value, *slopes = pulls(ChiPO(1.0, 2.0), sign * 3.0, -sign * 3.0)
    assert value == pytest.approx(math.log1p(math.exp(-2.0 * sign)))
    assert slopes == [0, 0]
    within, *slopes = pulls(ChiPO(1.0, 2.0), sign * 0.1, -sign * 0.1)
    assert within == pytest.approx(pulls(ChiPO(1.0, 50.0), sign * 0.1, -sign * 0.1)[0])
    assert all(slopes)


def test_a_certain_preference_stops_at_the_clip() -> None:
    halves = log((0.5, 0.5))
    path = descend(mean_loss(ChiPO(1.0, 1.5), halves, [(0, 1)]), halves, 0.01, 700)
    z = 2 * path[-1].exp()
    assert float(z[0] + z[0].log() - z[1] - z[1].log()) == pytest.approx(1.5, abs=0.01)
    assert bool(torch.equal(path[-1], path[-50]))
