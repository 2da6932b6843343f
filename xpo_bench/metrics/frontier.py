"""The exact reward–KL frontier of enumerable worlds, by safeguarded root finding.

Rewards are counted from the best action of their prompt: with deficits d = max r − r ≥ 0 the tilted policy
ρ_b ∝ π_ref·exp(−d/b) never overflows, and what is left of a large reward offset cannot swallow small
differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xpo_bench.contract.metric import Array, Mask

ITERATIONS = 200
"""Steps of the search at most. Every step at least halves either the bracket or the step before it, so some
120 suffice.
"""
NEGLIGIBLE_KL = 1e-34
"""Nats: what such a KL buys, √(2·kl) standard deviations of the reward, is below rounding."""
ROUNDING = 1e-10
"""Part of the range of rewards up to which a result outside of its bounds is rounding; beyond, it is an
error. Over 30,000 random worlds the largest that was seen is 5e-13, where the policy's own KL was computed
from rounded logarithms."""
EPS = float(np.finfo(np.float64).eps)


class Deficits(NamedTuple):
    """How far rewards lie below the best action of their prompt.

    `value` (P, A): max r − r, 0 where there is no action. `top` (P,): the largest reward of each prompt.
    """

    value: Array
    top: Array


class Tilted(NamedTuple):
    """Means over prompts at one tilt, shape (R,): KL in nats, deficit, variance of deficits in a prompt."""

    kl: Array
    deficit: Array
    variance: Array


def deficits_of(reward: Array, mask: Mask) -> Deficits:
    """Rewards counted from the best action, from shapes (P, A)."""
    top = np.where(mask, reward, -np.inf).max(-1)
    top = np.where(mask.any(-1), top, 0.0)
    return Deficits(np.where(mask, top[:, None] - np.where(mask, reward, 0.0), 0.0), top)


def frontier_reward(kl: Array, ref_logp: Array, mask: Mask, reward: Array, prompt_weight: Array) -> Array:
    """max over ρ of the mean E_ρ r subject to the mean KL(ρ‖π_ref) ≤ kl, exact, for each run, shape (R,).

    From `frontier_deficit`, which see. At KL 0 it is the reference's own reward, and from −log π_ref(best
    actions) on, averaged over prompts, the largest reward there is. NaN where kl is.

    Args:
        kl, prompt_weight: shapes (R,), (R, P). ref_logp, mask, reward: shape (P, A).
    """
    reachable = mask & np.isfinite(ref_logp)
    found = deficits_of(reward, reachable)
    best: Array = (prompt_weight * found.top).sum(-1) - frontier_deficit(
        kl, ref_logp, reachable, found.value, prompt_weight
    )
    return best


def frontier_deficit(kl: Array, ref_logp: Array, mask: Mask, deficit: Array, prompt_weight: Array) -> Array:
    """min over ρ of the mean E_ρ d subject to the mean KL(ρ‖π_ref) ≤ kl, exact, for each run, shape (R,).

    The minimum is at ρ ∝ π_ref·exp(−d/b) with one b for all prompts. Its KL K(b) rises with 1/b, so ln K(b) =
    ln kl is solved for u = ln(range of d / b) by Newton's method inside a bracket that is known to hold the
    root; a step that leaves the bracket or is more than half of the one before is replaced by bisection. What
    is left of the constraint is then spent along the tangent of the frontier, whose slope is b: the error is
    of second order in it.

    Args:
        kl, prompt_weight: shapes (R,), (R, P). ref_logp, mask, deficit: shape (P, A); rewards below the best
            action's.

    Raises:
        ArithmeticError: the search has not converged, or its result lies outside of [0, E_ref d].
        ValueError: a negative KL.
    """
    if bool((kl < 0).any()):
        raise ValueError(f"a KL of {float(np.nanmin(kl)):.6g} nats; want one of at least 0")
    ref = _normalised(ref_logp, mask)
    used = prompt_weight > 0
    span = np.where(used, deficit.max(-1, initial=0.0), 0.0).max(
        -1, initial=0.0
    )  # (R,): the range of rewards
    at_reference: Array = (prompt_weight * (np.exp(ref) * deficit).sum(-1)).sum(-1)
    best = -log_total(ref, mask & (deficit == 0))  # −log π_ref of the best actions, (P,)
    farthest = np.where(used, prompt_weight * best, 0.0).sum(-1)

    out = np.where(np.isnan(kl), np.nan, at_reference)
    out = np.where(kl >= farthest, 0.0, out)
    active = np.flatnonzero((kl > NEGLIGIBLE_KL) & (kl < farthest) & (span > 0))
    if not len(active):
        return out
    search = _Search(ref, mask, deficit, prompt_weight[active], span[active], kl[active])
    found = search.run(float(best.max()))
    bound, tolerance = at_reference[active], ROUNDING * span[active]
    if not bool(((found >= -tolerance) & (found <= bound + tolerance)).all()):
        at = int(np.argmax(np.maximum(-found, found - bound) / tolerance))
        raise ArithmeticError(
            f"frontier at KL {kl[active][at]:.17g} nats: {found[at]:.17g} below the best reward; "
            f"want 0 to {bound[at]:.17g}"
        )
    out[active] = np.clip(found, 0.0, bound)
    return out


class _Search:
    """Newton's method inside brackets for runs that each have a root, shapes as in `frontier_deficit`."""

    def __init__(self, ref: Array, mask: Mask, deficit: Array, weight: Array, span: Array, kl: Array) -> None:
        self.ref, self.mask, self.deficit, self.weight, self.span, self.kl = (
            ref,
            mask,
            deficit,
            weight,
            span,
            kl,
        )
        self.p_ref = np.exp(ref)

    def run(self, best: float) -> Array:
        """The smallest mean deficits, shape (R,); `best`: the most −log π_ref of a prompt's best actions."""
        log_kl = np.log(self.kl)
        # K ≤ (range/b)²/8 (Hoeffding), and where every other action has less than e^−800 of the best, K is at
        # its largest
        least = self.deficit[self.deficit > 0].min()
        low, high = 0.5 * np.log(8 * self.kl), np.log((800 + best) * self.span / least)
        high = np.clip(high, low, np.maximum(low, 600.0))
        everything = np.arange(len(self.kl))
        spread = self.tilt(np.full(len(self.kl), -np.inf), everything).variance / self.span**2
        u = np.clip(
            0.5 * np.log(2 * self.kl / np.maximum(spread, 1e-300)), low, high
        )  # K ≈ u²·variance/2 near the reference
        before, out, going = high - low, np.full(len(self.kl), np.nan), everything
        for _ in range(ITERATIONS):
            at = self.tilt(u[going], going)
            b = self.span[going] * np.exp(-u[going])
            short = self.kl[going] - at.kl  # what is left of the constraint
            off = np.log(np.maximum(at.kl, 1e-300)) - log_kl[going]
            low[going] = np.where(off < 0, u[going], low[going])
            high[going] = np.where(off < 0, high[going], u[going])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                newton = -off * at.kl / (at.variance / b**2)  # d ln K/du = variance/(b²·K)
            newton = np.where(np.isfinite(newton), newton, np.inf)
            near = np.abs(newton) < 1e-3
            width = high[going] - low[going]
            # the frontier is concave: where K ≤ kl it lies between its value here and the tangent; where K >
            # kl its slope down to kl is at most that at the lower end of the bracket; and in the range of
            # Newton's method the error is quadratic
            slope = b * np.where(short < 0, np.exp(u[going] - low[going]), 1.0)
            error = np.abs(short) * np.where(near, b * np.where(near, np.abs(newton), 1.0), slope)
            done = (error <= 4 * EPS * self.span[going]) | (
                width <= 2 * EPS * np.maximum(np.abs(u[going]), 1.0)
            )
            out[going[done]] = (at.deficit - short * b)[done]
            inside = (u[going] + newton > low[going]) & (u[going] + newton < high[going])
            step = np.where(
                inside & (np.abs(newton) <= 0.5 * before[going]), newton, 0.5 * (low + high)[going] - u[going]
            )
            before[going], u[going] = np.abs(step), u[going] + step
            going = going[~done]
            if not len(going):
                return out
        worst = self.kl[going[0]]
        raise ArithmeticError(
            f"frontier at KL {worst:.17g} nats: no convergence in {ITERATIONS} steps ({len(going)} runs)"
        )

    def tilt(self, u: Array, runs: np.ndarray) -> Tilted:
        """What π_ref·exp(−d/b) comes to at range/b = exp(u), for some of the runs."""
        scaled = np.exp(u)[:, None, None] * (self.deficit / self.span[runs][:, None, None])
        change = np.where(self.mask, np.expm1(-scaled), 0.0)
        total = (self.p_ref * change).sum(-1, keepdims=True)  # Z − 1, accurate where Z is near 1
        log_z = np.log1p(np.maximum(total, -0.5))
        if bool((far := total <= -0.5).any()):
            log_z = np.where(far, log_total(self.ref - scaled, self.mask)[..., None], log_z)
        ratio = np.where(
            self.mask, -scaled - log_z, 0.0
        )  # log ρ − log π_ref, no difference of rounded logarithms
        p = np.where(self.mask, np.exp(self.ref + ratio), 0.0)
        terms = np.where(
            np.abs(ratio) < 1, p * _excess(ratio), np.where(p > 0, p * ratio, 0.0) + (self.p_ref - p)
        )
        mean = (p * self.deficit).sum(-1)
        variance = (p * (self.deficit - mean[..., None]) ** 2).sum(-1)
        weight = self.weight[runs]
        return Tilted(
            *((weight * x).sum(-1) for x in (terms.sum(-1), mean, variance))
        )  # not @: it rounds by the number of runs


def _excess(x: Array) -> Array:
    """x + exp(−x) − 1 ≥ 0 for |x| < 1, in relative precision: near 0, where it cancels, x²/2 − x³/6 + …"""
    near = np.abs(x) < 0.02
    s = np.where(near, x, 0.0)
    series = (
        s
        * s
        * (1 / 2 - s * (1 / 6 - s * (1 / 24 - s * (1 / 120 - s * (1 / 720 - s * (1 / 5040 - s / 40320))))))
    )
    y = np.where(near, 0.0, np.clip(x, -1.0, 1.0))
    return np.where(near, series, y + np.expm1(-y))


def _normalised(logp: Array, mask: Mask) -> Array:
    """Log-probabilities that sum to 1 over each prompt's actions, −inf where there is none, shape (P, A)."""
    values = np.where(mask, logp, -np.inf)
    total = log_total(values, mask)[..., None]
    return np.where(mask, values - np.where(np.isfinite(total), total, 0.0), -np.inf)


def log_total(values: Array, mask: Mask) -> Array:
    """ln Σ exp over the last axis where `mask` is true; −inf where nothing is."""
    top = np.where(mask, values, -np.inf).max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        value: Array = top[..., 0] + np.log(
            np.where(mask, np.exp(np.where(mask, values - top, 0.0)), 0.0).sum(-1)
        )
    return value
