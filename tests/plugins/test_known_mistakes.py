"""Mistakes known from elsewhere: each check passes on our loss and fails on a copy broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from loss_checks import (
    check_accumulation,
    check_extremes,
    check_groups_are_read,
    check_ipo_at_reference,
    check_ipo_per_token,
    check_mismatch,
    check_odds,
    check_options_matter,
    check_padding,
    check_penalty_inside,
    check_robust_unbiased,
    check_shape,
    check_stacking,
    check_z0,
    random_step,
    with_totals,
)
from small_worlds import TableTools
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, Group, Pair, Scores, Step
from xpo_bench.plugins import load
from xpo_bench.train.batches import mismatch
from xpo_bench.types import Completion
from xpo_bench_plugins.algorithms.bon import BestOfN
from xpo_bench_plugins.algorithms.cdpo import CDPO
from xpo_bench_plugins.algorithms.cpo import CPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.dpop import DPOP
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.npo import NPO
from xpo_bench_plugins.algorithms.online_dpo import OnlineDPO
from xpo_bench_plugins.algorithms.orpo import ORPO
from xpo_bench_plugins.algorithms.ppo import PPO
from xpo_bench_plugins.algorithms.rlhf import RLHF
from xpo_bench_plugins.algorithms.robust import RobustDPO
from xpo_bench_plugins.algorithms.rso import RSO
from xpo_bench_plugins.algorithms.sdpo import SDPO
from xpo_bench_plugins.algorithms.sft import SFT
from xpo_bench_plugins.algorithms.simpo import SimPO
from xpo_bench_plugins.algorithms.slic import SLiC

EVERY = [
    DPO(),
    IPO(),
    CDPO(),
    RobustDPO(),
    CPO(),
    SimPO(),
    KTO(),
    NPO(),
    ORPO(),
    SDPO(),
    RSO(),
    DPOP(),
    SLiC(),
    SFT(),
    RLHF(),
    PPO(),
    OnlineDPO(pairs=32),  # enough pairs for the two kinds of labels to differ
    BestOfN(),
]
PAIRS = [Pair("x", c, r) for c, r in ("ab", "ba", "ab", "cd", "ac", "bd", "da", "cb", "cd")]

Check = Callable[[Algorithm], None]


def fails(check: Check, algorithm: Algorithm) -> None:
    with pytest.raises(AssertionError):
        check(algorithm)


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: a.name)
@pytest.mark.parametrize("check", [check_shape, check_groups_are_read, check_padding, check_stacking], ids=lambda c: c.__name__)
def test_every_loss(check: Check, algorithm: Algorithm) -> None:
    check(algorithm)


@pytest.mark.parametrize("algorithm", [a for a in EVERY if not a.batch_coupled], ids=lambda a: a.name)
def test_micro_batches(algorithm: Algorithm) -> None:
    check_accumulation(algorithm)


@pytest.mark.parametrize("algorithm", [a for a in EVERY if not isinstance(a, PPO)], ids=lambda a: a.name)
def test_extreme_log_ratios(algorithm: Algorithm) -> None:
    check_extremes(algorithm)


def test_every_algorithm_is_among_these() -> None:
    found = load().algorithms
    offered = {name for name, (_, info) in found.items() if info.module.startswith("xpo_bench_plugins.")}
    assert offered == {a.name for a in EVERY}


# --------------------------------------------------------------------------- log(sigmoid), micro-batches


class LogOfSigmoid(DPO):
    def loss(self, step: Step) -> Tensor:
        return -self._logit(step).sigmoid().log()


def test_log_of_sigmoid_is_caught() -> None:
    fails(check_extremes, LogOfSigmoid())


class MeanOfMicroBatch(NPO):
    def loss(self, step: Step) -> Tensor:
        return super().loss(Step(step.policy, step.reference, step.columns, step.weight))  # totals of the rows at hand


class MeanOverTheBatch(DPO):
    def loss(self, step: Step) -> Tensor:
        return super().loss(step).mean(-1, keepdim=True)


def test_means_of_micro_batches_are_caught() -> None:
    fails(check_accumulation, MeanOfMicroBatch())
    fails(check_shape, MeanOverTheBatch())


class BranchesOnBeta(DPO):
    def loss(self, step: Step) -> Tensor:
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        return -logsigmoid(float(torch.as_tensor(self.beta).flatten()[0]) * margin)


def test_reading_one_value_of_a_stacked_field_is_caught() -> None:
    fails(check_stacking, BranchesOnBeta())


class SumsOverPadding(DPO):
    def _logit(self, step: Step) -> Tensor:
        ratio = {g: (step.policy[g].token_logps - step.reference[g].token_logps).sum(-1) for g in step.policy}
        return self.beta * (ratio["chosen"] - ratio["rejected"])


def test_scoring_padding_is_caught() -> None:
    fails(check_padding, SumsOverPadding())


# --------------------------------------------------------------------------- IPO


class SummedIPO(IPO):
    def _delta(self, step: Step) -> Tensor:
        return step.log_ratio("chosen") - step.log_ratio("rejected")


class CountsNonZeroRatios(IPO):
    def _delta(self, step: Step) -> Tensor:
        def mean(group: str) -> Tensor:
            ratio = (step.policy[group].token_logps - step.reference[group].token_logps) * step.policy[group].mask
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
        logit = self.beta * (step.log_ratio("completion") - step.log_ratio("mismatched").mean(-1, keepdim=True).clamp(min=0))
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
    fails(check_groups_are_read, MatchedZ0())


def test_mismatched_prompts() -> None:
    def ours(prompts: list[str]) -> list[int]:
        rows = [Completion(p, f"y{i}") for i, p in enumerate(prompts)]
        found, index = mismatch(np.arange(len(rows))[None, :], rows)
        return [prompts.index(found[i].prompt) for i in index[0]]

    check_mismatch(ours)
    with pytest.raises(AssertionError):
        check_mismatch(lambda prompts: list(range(len(prompts)))[::-1])  # an odd batch's middle row meets itself
    with pytest.raises(AssertionError):
        check_mismatch(lambda prompts: [(i + 1) % len(prompts) for i in range(len(prompts))])  # the pair's other half


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


# --------------------------------------------------------------------------- references and options


class UnreadReference(CPO):
    groups: ClassVar[Any] = {"chosen": Group(reference=True), "rejected": Group(reference=True)}


class UndeclaredReference(SimPO):
    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.mean_log_ratio("chosen") - step.mean_log_ratio("rejected"))


class UnreadGroup(SFT):
    groups: ClassVar[Any] = {"chosen": Group(), "rejected": Group()}


@pytest.mark.parametrize("algorithm", [UnreadReference(), UndeclaredReference(), UnreadGroup()], ids=lambda a: type(a).__name__)
def test_declared_and_read_references_that_differ_are_caught(algorithm: Algorithm) -> None:
    fails(check_groups_are_read, algorithm)


@pytest.mark.parametrize("algorithm", [CPO(), SimPO(), ORPO(), SLiC(), SFT(), PPO(), BestOfN()], ids=lambda a: a.name)
def test_reference_free_losses_declare_no_reference(algorithm: Algorithm) -> None:
    assert not any(group.reference for group in algorithm.groups.values())


def outcome(algorithm: Algorithm) -> tuple[Any, ...]:
    """All that an algorithm decides, with a fixed random stream."""
    tools = TableTools(seed=3)
    tools.current = tools.reference + np.array([0.4, -0.2, 0.1, 0.3])
    tools.current -= torch.tensor(tools.current).logsumexp(-1).item()
    stages = tuple(algorithm.stages())
    try:
        tools.examples = PAIRS
        shaped = algorithm.shape_data(PAIRS, tools)
    except ValueError as error:  # also an outcome: rso with a single candidate text
        return str(error), stages
    chunks = [tuple(map(str, algorithm.stage_examples(i, shaped))) for i in range(len(stages))]
    solved = str(algorithm.solve(PAIRS, tools)) if any(stage.solve for stage in stages) else ""
    return algorithm.loss(random_step(algorithm)).tolist(), stages, chunks, solved, tools.notes


@dataclass(frozen=True)
class DropsSmoothing(IPO):
    name: ClassVar[str] = "drops-smoothing"
    label_smoothing: float = 0.1
    form: Literal["a", "b"] = "a"


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: a.name)
def test_no_option_is_ignored(algorithm: Algorithm) -> None:
    check_options_matter(algorithm, outcome)


def test_ignored_options_are_caught() -> None:
    with pytest.raises(AssertionError, match=r"ignored options: .*label_smoothing.*form"):
        check_options_matter(DropsSmoothing(), outcome)


# --------------------------------------------------------------------------- padding rows


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: a.name)
def test_absent_rows_change_nothing_for_the_others(algorithm: Algorithm) -> None:
    step = random_step(algorithm)
    expected = algorithm.loss(step)

    def longer(values: Tensor, fill: float) -> Tensor:
        return torch.cat([values, torch.full((2, *values.shape[1:]), fill, dtype=values.dtype)])

    def scores(groups: Any) -> dict[str, Scores]:
        return {g: Scores(longer(s.token_logps, -9.0), longer(s.mask, False)) for g, s in groups.items()}

    weight = longer(torch.ones(6, dtype=torch.float64), 0.0)
    columns = {name: longer(values, 0.0) for name, values in step.columns.items()}
    padded = with_totals(Step(scores(step.policy), scores(step.reference), columns, weight))
    values = algorithm.loss(padded)
    torch.testing.assert_close(values[:6], expected)
    assert bool(torch.isfinite(values).all())
