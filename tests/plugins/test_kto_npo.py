"""KTO's reference point, and NPO's two sets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from loss_checks import random_step
from torch import Tensor

from xpo_bench import Scores, Step
from xpo_bench.testing.steps import pick, with_totals
from xpo_bench_plugins.algorithms.kto import KTO, reference_point
from xpo_bench_plugins.algorithms.npo import NPO


def mismatched(ratios: list[float], lengths: list[int] | None = None) -> Step:
    """A step whose mismatched rows have these log-ratios (one token each; length 0 is an absent row)."""
    values = torch.tensor(ratios, dtype=torch.float64).unsqueeze(-1)
    mask = torch.tensor([n > 0 for n in lengths or [1] * len(ratios)]).unsqueeze(-1)
    zero = torch.zeros_like(values)
    own = Scores(zero, torch.ones_like(mask))
    return Step(
        {"completion": own, "mismatched": Scores(values, mask)},
        {"completion": own, "mismatched": Scores(zero, mask)},
        {"desirable": torch.tensor([1.0, 0.0] * len(ratios))[: len(ratios)]},
    )


def z0(step: Step) -> float:
    value = reference_point(step)
    assert value.shape == (1,)
    return float(value)


def test_z0_is_the_mean_over_present_rows_with_weight() -> None:
    assert z0(mismatched([1.0, 2.0, 6.0])) == pytest.approx(3.0)
    assert z0(mismatched([1.0, 2.0, math.inf], [1, 1, 0])) == pytest.approx(1.5)
    assert z0(replace(mismatched([1.0, 2.0, 6.0]), weight=torch.tensor([1.0, 0.0, 1.0]))) == pytest.approx(
        3.5
    )
    assert z0(mismatched([-1.0, -2.0])) == 0.0
    assert z0(mismatched([5.0, 5.0], [0, 0])) == 0.0


def test_z0_is_the_mean_exact_kl_where_there_is_one() -> None:
    step = replace(mismatched([9.0, 9.0, 9.0]), exact_kl=torch.tensor([0.1, 0.2, 0.9]))
    assert z0(step) == pytest.approx(0.4)
    assert z0(replace(step, weight=torch.tensor([1.0, 1.0, 0.0]))) == pytest.approx(0.15)
    runs = replace(step, exact_kl=torch.tensor([[0.1, 0.3, 0.2], [1.0, 2.0, 3.0]]))
    assert reference_point(runs).squeeze(-1).tolist() == pytest.approx([0.2, 2.0])


def test_kto_by_hand() -> None:
    step = mismatched([2.0, 2.0])
    # lr = 0, z0 = 2, β = ½: desirable 1 − σ(−1), undesirable 1 − σ(1)
    values = KTO(0.5, 3.0, 5.0).loss(step)
    assert values.tolist() == pytest.approx([3 / (1 + math.exp(-1)), 5 / (1 + math.exp(1))])


def npo_sums(algorithm: NPO, step: Step) -> tuple[Tensor, Tensor]:
    """Plain means over the forget and the retain rows."""
    retain = step.columns["desirable"] > 0.5
    beta = algorithm.beta
    forget = (2 / beta) * torch.log1p(torch.exp(beta * step.log_ratio("completion")))[~retain]
    return forget.mean(), -step.policy["completion"].mean[retain].mean()


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_npo_averages_each_set_over_its_own_rows(weight: float) -> None:
    algorithm = NPO(0.3, weight)
    step = random_step(algorithm, n=7)  # 3 retain rows and 4 to forget
    forget, retain = npo_sums(algorithm, step)
    torch.testing.assert_close(algorithm.loss(step).sum() / 7, forget + weight * retain)
    # without totals, those of the rows at hand
    torch.testing.assert_close(algorithm.loss(replace(step, totals={})), algorithm.loss(step))


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3)])
def test_npo_is_finite_with_an_empty_set(rows: slice) -> None:
    algorithm = NPO(0.1, 1.0)
    step = with_totals(pick(random_step(algorithm), rows))
    assert len(set(step.columns["desirable"].tolist())) == 1
    values = algorithm.loss(step)
    assert bool(torch.isfinite(values).all())
    forget, retain = npo_sums(algorithm, step)
    torch.testing.assert_close(values.mean(), retain if rows.start == 0 else forget)
