"""Checks that catch the known mistakes of single losses. Each takes an algorithm and raises AssertionError.

What every loss has to satisfy is checked by the conformance kit, `xpo_bench.testing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, Scores, Step
from xpo_bench.testing.steps import with_totals


def random_scores(
    shape: tuple[int, ...], generator: torch.Generator, mask: Tensor, dtype: torch.dtype
) -> Scores:
    return Scores(-3 * torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype), mask)


def random_step(
    algorithm: Algorithm, n: int = 6, tokens: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Step:
    """A step with completions of different lengths and all columns that the algorithm asks for."""
    g = torch.Generator().manual_seed(seed)
    policy, reference = {}, {}
    for name, group in algorithm.groups.items():
        length = torch.randint(1, tokens + 1, (n, 1), generator=g)
        mask = torch.arange(tokens) < length
        policy[name] = random_scores((n, tokens), g, mask, dtype)
        other = random_scores((n, tokens), g, mask, dtype)
        if group.reference:
            reference[name] = other
    desirable = (torch.arange(n) % 3 == 0).to(dtype)  # unequal numbers of both labels
    columns = {
        "desirable": desirable,
        "advantage": torch.randn(n, generator=g, dtype=torch.float64).to(dtype),
        "old_logp": next(iter(policy.values())).sum
        + torch.randn(n, generator=g, dtype=torch.float64).to(dtype),
    }
    return with_totals(Step(policy, reference, columns))


# --------------------------------------------------------------------------- single algorithms


def check_ipo_per_token(algorithm: Algorithm) -> None:
    """Repeating every token of both completions, which keeps the log-ratio per token, keeps the loss."""
    step = random_step(algorithm)

    def twice(scores: Mapping[str, Scores]) -> dict[str, Scores]:
        return {
            g: Scores(torch.cat([s.token_logps] * 2, -1), torch.cat([s.mask] * 2, -1))
            for g, s in scores.items()
        }

    longer = replace(step, policy=twice(step.policy), reference=twice(step.reference))
    torch.testing.assert_close(algorithm.loss(longer), algorithm.loss(step))


def check_ipo_at_reference(algorithm: Algorithm) -> None:
    """At policy = reference the loss is (1/2τ)²: lengths come from the mask, not from non-zero log-ratios."""
    step = random_step(algorithm)
    tau: Any = algorithm.tau  # type: ignore[attr-defined]
    values = algorithm.loss(replace(step, policy=step.reference))
    torch.testing.assert_close(values, torch.full_like(values, (1 / (2 * tau)) ** 2))


def check_robust_unbiased(algorithm: Algorithm) -> None:
    """The mean over labels flipped with probability ε is the logistic loss on the clean label."""
    step = random_step(algorithm)
    beta, eps = algorithm.beta, algorithm.label_smoothing  # type: ignore[attr-defined]
    swap = {"chosen": "rejected", "rejected": "chosen"}
    flipped = replace(
        step,
        policy={g: step.policy[swap[g]] for g in step.policy},
        reference={g: step.reference[swap[g]] for g in step.reference},
    )
    mean = (1 - eps) * algorithm.loss(step) + eps * algorithm.loss(flipped)
    clean = -logsigmoid(beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))
    torch.testing.assert_close(mean, clean)


def check_z0(algorithm: Algorithm) -> None:
    """KTO's z0 carries no gradient and comes from the mismatched rows, not from the rows that are judged."""
    step = random_step(algorithm)
    mine = step.policy["completion"].token_logps.clone().requires_grad_(True)
    other = step.policy["mismatched"].token_logps.clone() + 3.0  # drift: a z0 above its floor of 0
    other.requires_grad_(True)
    policy = {
        "completion": Scores(mine, step.policy["completion"].mask),
        "mismatched": Scores(other, step.policy["mismatched"].mask),
    }
    values = algorithm.loss(replace(step, policy=policy))
    own, drift = torch.autograd.grad(values[0], [mine, other], allow_unused=True)
    assert drift is None or not bool(drift.any()), "z0 carries a gradient into the mismatched rows"
    assert not bool(own[1:].any()), "z0 carries a gradient into other judged rows"
    shifted = mine.detach().clone()
    shifted[1:] += 5.0
    moved = algorithm.loss(
        replace(step, policy={**policy, "completion": Scores(shifted, policy["completion"].mask)})
    )
    torch.testing.assert_close(moved[0], values[0], msg="z0 comes from matched rows")
    raised = {**policy, "mismatched": Scores(other.detach() + 1.0, policy["mismatched"].mask)}
    assert not torch.allclose(algorithm.loss(replace(step, policy=raised)), values), (
        "z0 ignores the mismatched rows"
    )


def check_odds(algorithm: Algorithm) -> None:
    """ORPO's log odds are exact, and their gradient finite and exact, for averages in (−∞, −1e-12]."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        for average in (-1e-12, -1e-10, -1e-7, -1e-3, -0.5, -1.0, -20.0, -100.0, -3000.0):
            for group in ("chosen", "rejected"):
                leaves = {
                    g: torch.full((1, 1), -1.0, dtype=dtype, requires_grad=True)
                    for g in ("chosen", "rejected")
                }
                leaves[group] = torch.full((1, 1), average, dtype=dtype, requires_grad=True)
                mask = torch.ones(1, 1, dtype=torch.bool)
                value = algorithm.loss(Step({g: Scores(t, mask) for g, t in leaves.items()}))
                gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
                expected = _orpo(algorithm, {g: float(t.detach()) for g, t in leaves.items()})
                for got, want in zip((value.detach(), *gradients), expected, strict=True):
                    assert math.isfinite(float(got)), f"{float(got)} at avg({group}) = {average} in {dtype}"
                    assert math.isclose(float(got), want, rel_tol=tolerance, abs_tol=tolerance), (
                        f"{float(got)} instead of {want} at avg({group}) = {average} in {dtype}"
                    )


def _orpo(algorithm: Algorithm, average: Mapping[str, float]) -> tuple[float, float, float]:
    """ORPO's loss and its two derivatives in decimal arithmetic."""
    with localcontext() as context:
        context.prec = 1400  # exp(−3000) is 1e-1303
        a = {g: Decimal(v) for g, v in average.items()}
        p = {g: v.exp() for g, v in a.items()}
        odds = p["chosen"] / (1 - p["chosen"]) / (p["rejected"] / (1 - p["rejected"]))
        weight = Decimal(algorithm.odds_weight)  # type: ignore[attr-defined]
        context.prec = 50
        value = -a["chosen"] + weight * (1 + 1 / odds).ln()
        share = 1 / (1 + odds)  # 1 − σ(log odds ratio)
        slope = {g: 1 / (1 - p[g]) for g in p}
        return (
            float(value),
            float(-1 - weight * share * slope["chosen"]),
            float(weight * share * slope["rejected"]),
        )


def check_penalty_inside(algorithm: Algorithm) -> None:
    """DPOP's penalty fades with a large margin, as only a penalty inside the log-sigmoid does."""
    mask = torch.ones(1, 1, dtype=torch.bool)
    zero = Scores(torch.zeros(1, 1, dtype=torch.float64), mask)

    def loss(chosen: float, rejected: float) -> float:
        policy = {
            "chosen": Scores(torch.tensor([[chosen]], dtype=torch.float64), mask),
            "rejected": Scores(torch.tensor([[rejected]], dtype=torch.float64), mask),
        }
        return float(algorithm.loss(Step(policy, {"chosen": zero, "rejected": zero})))

    beta, weight = algorithm.beta, algorithm.penalty_weight  # type: ignore[attr-defined]
    assert loss(-0.1, -1000.0) < 1e-12
    # the logit is β(Δ − λ·0.1): with Δ = λ·0.1 the loss is ln 2
    assert math.isclose(loss(-0.1, -0.1 - weight * 0.1), math.log(2), rel_tol=1e-9)
    # inside, the penalty is scaled by β
    assert math.isclose(loss(-0.1, -0.1), math.log1p(math.exp(beta * weight * 0.1)), rel_tol=1e-9)
    assert math.isclose(loss(0.1, 0.1), math.log(2), rel_tol=1e-9)


def check_mismatch(pair_up: Any) -> None:
    """No completion keeps its own prompt, the middle row of an odd batch included.

    Args:
        pair_up: prompts of a batch -> for each row the row whose prompt it takes.
    """
    for prompts in (list("abc"), list("abcde"), list("aabbcc"), list("aabbc")):
        partner = pair_up(prompts)
        kept = [row for row, other in enumerate(partner) if prompts[other] == prompts[row]]
        assert not kept, f"rows {kept} of {prompts} keep their own prompt"
