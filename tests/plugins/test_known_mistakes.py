"""Mistakes known from elsewhere: each check passes on our loss and fails on a copy broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from loss_checks import (
    check_ipo_at_reference,
    check_ipo_per_token,
    check_mismatch,
    check_odds,
    check_penalty_inside,
    check_robust_unbiased,
    check_z0,
)
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, Scores, Step
from xpo_bench.contract.examples import Completion
from xpo_bench.train.batching import mismatch
from xpo_bench_plugins.algorithms.dpop import DPOP
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.orpo import ORPO
from xpo_bench_plugins.algorithms.robust import RobustDPO

Check = Callable[[Algorithm], None]


def fails(check: Check, algorithm: Algorithm) -> None:
    with pytest.raises(AssertionError):
        check(algorithm)


# --------------------------------------------------------------------------- IPO


class SummedIPO(IPO):
    def _delta(self, step: Step) -> Tensor:
        return step.log_ratio("chosen") - step.log_ratio("rejected")


class CountsNonZeroRatios(IPO):
    def _delta(self, step: Step) -> Tensor:
        def mean(group: str) -> Tensor:
            ratio = (step.policy[group].token_logps - step.reference[group].token_logps) * step.policy[
                group
            ].mask
            return ratio.sum(-1) / (ratio != 0).sum(-1)

        return mean("chosen") - mean("rejected")


def test_ipo_lengths() -> None:
    check_ipo_per_token(IPO())
    check_ipo_at_reference(IPO())
    check_ipo_at_reference(IPO(normalize="none"))
    fails(check_ipo_per_token, SummedIPO())
    fails(check_ipo_at_reference, CountsNonZeroRatios())


# --------------------------------------------------------------------------- robust DPO


class ScaledCDPO(RobustDPO):
    def loss(self, step: Step) -> Tensor:
        logit, eps = self._logit(step), self.label_smoothing
        return (-(1 - eps) * logsigmoid(logit) - eps * logsigmoid(-logit)) / (1 - 2 * eps)


def test_sign_of_robust_dpo() -> None:
    check_robust_unbiased(RobustDPO())
    fails(check_robust_unbiased, ScaledCDPO())


# --------------------------------------------------------------------------- KTO


class GradientThroughZ0(KTO):
    def loss(self, step: Step) -> Tensor:
        logit = self.beta * (
            step.log_ratio("completion") - step.log_ratio("mismatched").mean(-1, keepdim=True).clamp(min=0)
        )
        return torch.where(step.columns["desirable"] > 0.5, (-logit).sigmoid(), logit.sigmoid())


class MatchedZ0(KTO):
    def loss(self, step: Step) -> Tensor:
        ratio = step.log_ratio("completion")
        logit = self.beta * (ratio - ratio.mean(-1, keepdim=True).clamp(min=0).detach())
        return torch.where(step.columns["desirable"] > 0.5, (-logit).sigmoid(), logit.sigmoid())


def test_z0_of_kto() -> None:
    check_z0(KTO(beta=0.3))
    fails(check_z0, GradientThroughZ0(beta=0.3))
    fails(check_z0, MatchedZ0(beta=0.3))


def test_mismatched_prompts() -> None:
    def ours(prompts: list[str]) -> list[int]:
        rows = [Completion(p, f"y{i}") for i, p in enumerate(prompts)]
        found, index = mismatch(np.arange(len(rows))[None, :], rows)
        return [prompts.index(found[i].prompt) for i in index[0]]

    check_mismatch(ours)
    with pytest.raises(AssertionError):
        check_mismatch(
            lambda prompts: list(range(len(prompts)))[::-1]
        )  # an odd batch's middle row meets itself
    with pytest.raises(AssertionError):
        check_mismatch(
            lambda prompts: [(i + 1) % len(prompts) for i in range(len(prompts))]
        )  # the pair's other half


# --------------------------------------------------------------------------- ORPO


def orpo_with(log_odds: Callable[[Tensor], Tensor]) -> Algorithm:
    class Broken(ORPO):
        def loss(self, step: Step) -> Tensor:
            chosen, rejected = step.policy["chosen"].mean, step.policy["rejected"].mean
            return -chosen - self.odds_weight * logsigmoid(log_odds(chosen) - log_odds(rejected))

    return Broken()


def test_odds_of_orpo() -> None:
    check_odds(ORPO(odds_weight=0.5))
    fails(check_odds, orpo_with(lambda a: a - torch.log1p(-a.exp())))
    # the safe branch is selected, yet the NaN of the other one reaches the gradient
    both = orpo_with(lambda a: a - torch.where(a > -0.7, (-a.expm1()).log(), torch.log1p(-a.exp())))
    fails(check_odds, both)


def test_orpo_stays_finite_where_rounding_makes_a_probability_one() -> None:
    logps = torch.zeros(1, 1, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    for order in (("chosen", "rejected"), ("rejected", "chosen")):
        other = Scores(torch.full((1, 1), -1.0), mask)
        value = ORPO().loss(Step({order[0]: Scores(logps, mask), order[1]: other})).sum()
        (gradient,) = torch.autograd.grad(value, logps)
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(gradient).all())


# --------------------------------------------------------------------------- DPOP


class PenaltyOutside(DPOP):
    def loss(self, step: Step) -> Tensor:
        chosen = step.log_ratio("chosen")
        logit = self.beta * (chosen - step.log_ratio("rejected"))
        return -logsigmoid(logit) + self.penalty_weight * (-chosen).relu()


class PenaltyNotScaled(DPOP):
    def loss(self, step: Step) -> Tensor:
        chosen = step.log_ratio("chosen")
        logit = self.beta * (chosen - step.log_ratio("rejected"))
        return -logsigmoid(logit - self.penalty_weight * (-chosen).relu())


def test_penalty_of_dpop() -> None:
    check_penalty_inside(DPOP())
    fails(check_penalty_inside, PenaltyOutside())
    fails(check_penalty_inside, PenaltyNotScaled())
