"""How far the policy has gone from the initial one: exact on enumerable worlds, else from samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.metric import Array, Evaluation, History, Mask, WorldEvaluation, metric

SETTLED = 0.02
"""Relative change of kl over the last fifth of the steps below which a run has converged."""
STILL = 1e-12
"""Nats: a kl below it is that of a policy which has not moved, up to the rounding of float32."""


def divergence(logp: Array, logq: Array, mask: Mask) -> Array:
    """KL(p‖q) = Σ p·(ln p − ln q) over the last axis, nats.

    Written as Σ p·(d + exp(−d) − 1) with d = ln p − ln q, the same for normalised p and q: every term is
    non-negative, so that a KL of 1e-20 is still accurate.

    Args:
        logp, logq: normalised log-probabilities, broadcastable; ignored where `mask` is false.
    """
    p, q = (np.where(mask, np.exp(np.where(mask, x, 0.0)), 0.0) for x in (logp, logq))
    with np.errstate(invalid="ignore"):
        d = np.where(mask & (p > 0), logp - logq, 0.0)
    # for |d| ≥ 1 nothing cancels, and exp(−d) = q/p would overflow where p is tiny: p·d + (q − p) as it is
    near = np.abs(d) < 1.0
    small = np.where(near, d, 0.0)
    terms = np.where(near & (p > 0), p * (small + np.expm1(-small)), p * d + (q - p))
    value: Array = terms.sum(-1)
    return value


def world_kl(world: WorldEvaluation) -> Array:
    """KL(π‖π_ref) averaged over prompts by their weight, nats, shape (R,)."""
    return weighted(world, divergence(world.logp, world.ref_logp, world.mask))


def weighted(world: WorldEvaluation, values: Array) -> Array:
    """Average of values per prompt, shape (R, P), by the prompts' weight, shape (R,)."""
    used = world.prompt_weight > 0  # what does not count may be infinite
    mean: Array = (world.prompt_weight * np.where(used, values, 0.0)).sum(-1)
    return mean


@metric("nats")
def kl(ev: Evaluation) -> Array | None:
    """KL(π‖π_ref) per prompt against the task's INITIAL policy, averaged over the training data's prompts.

    Exact on enumerable worlds. Elsewhere the per-step full-vocabulary KL summed along on-policy samples
    (temperature 1, full support), with its standard error `kl_se` clustered by prompt.
    Source: Rafailov et al. 2023, eq. 3.
    """
    return None if ev.world is None else world_kl(ev.world)


@metric("nats")
def kl_forward(ev: Evaluation) -> Array | None:
    """KL(π_ref‖π) per prompt against the task's initial policy.

    It grows without bound where π gives up a completion. Source: the usual definition.
    """
    if ev.world is None:
        return None
    return weighted(ev.world, divergence(ev.world.ref_logp, ev.world.logp, ev.world.mask))


@metric("nats")
def entropy(ev: Evaluation) -> Array | None:
    """Entropy of π over completions, −Σ π ln π, averaged over the prompts of the training data.

    Exact worlds only. Where completions are too many to enumerate, `token_entropy` stands in its place.
    Source: Shannon 1948.
    """
    if ev.world is None:
        return None
    p = np.where(ev.world.mask, np.exp(np.where(ev.world.mask, ev.world.logp, 0.0)), 0.0)
    return weighted(ev.world, -(p * np.where(p > 0, ev.world.logp, 0.0)).sum(-1))


@metric("nats", kind="run")
def token_entropy(entropies: npt.ArrayLike, lengths: npt.ArrayLike) -> float:
    """Mean over the tokens of on-policy samples of the next token's full-vocabulary entropy, nats per token.

    Language models only, where the Monte Carlo kl is measured. Not comparable with `entropy`, which is that
    of whole completions.

    Args:
        entropies: summed over the tokens of each sample, shape (N,). lengths: its tokens, shape (N,).

    Source: Shannon 1948 (the entropy rate of the source that writes the samples).
    """
    return float(
        np.sum(np.asarray(entropies, dtype=np.float64)) / np.sum(np.asarray(lengths, dtype=np.float64))
    )


@metric("nats", kind="run")
def kl_se(per_sample_kl: npt.ArrayLike, prompt_index: npt.ArrayLike) -> float:
    """Standard error of the Monte Carlo kl, clustered by prompt.

    Samples of one prompt are not independent evidence. With one prompt it is the standard error over its
    samples; NaN from a single sample.
    Source: Liang & Zeger 1986 (cluster-robust variance), with the n/(n−1) correction.
    """
    values, index = np.asarray(per_sample_kl, dtype=np.float64), np.asarray(prompt_index)
    if len(values) < 2:
        return float("nan")
    _, place = np.unique(index, return_inverse=True)
    clusters = int(place.max()) + 1
    if clusters == 1:
        return float(values.std(ddof=1) / np.sqrt(len(values)))
    # Var(mean) = G/(G−1) · Σ_g (Σ_{i∈g} (x_i − mean))² / N²: a prompt's deviations add up before the square
    sums = np.bincount(place, weights=values - values.mean(), minlength=clusters)
    return float(np.sqrt(clusters / (clusters - 1) * (sums**2).sum()) / len(values))


def kl_from_samples(per_sample_kl: npt.ArrayLike, prompt_index: npt.ArrayLike) -> tuple[float, float]:
    """The Monte Carlo estimate of kl and its standard error, nats.

    Args:
        per_sample_kl: per-step full-vocabulary KL summed along each sample, shape (N,).
        prompt_index: which prompt each sample belongs to, shape (N,).
    """
    return float(np.mean(np.asarray(per_sample_kl, dtype=np.float64))), kl_se(per_sample_kl, prompt_index)


@metric("–", kind="note")
def kl_settled(history: History) -> Array:
    """1 where kl changed by at most 2 % of its final value (or 1e-12 nats) in the last fifth of the steps.

    That fifth has at least ten steps, or nothing is said. A policy that was set in closed form has settled.
    """
    before, now = history.last_fifth("kl")
    if history.closed_form:
        before = now
    with np.errstate(invalid="ignore"):
        settled = np.abs(now - before) <= SETTLED * np.abs(now) + STILL
    return np.where(np.isnan(before) | np.isnan(now), np.nan, settled.astype(np.float64))


@metric("–", kind="run")
def control(kl: npt.ArrayLike, regulariser: npt.ArrayLike, direction: int = 1) -> tuple[float, float]:
    """Minus the least-squares slope of ln kl(final) on ln(regulariser), over a sweep; 0 = without effect.

    Multiplied by the declared direction (−1 where a larger value loosens), so that above 0 the hyperparameter
    works as declared. Null unless every run of the sweep has converged. The exact optimum's own slope stands
    beside it.
    Returns (value, its standard error: NaN with two points). Source: this suite.
    """
    # kl ∝ λ^(−s): s is minus the slope of the line, its variance Σ residual² / (n − 2) / Σ (x − mean x)²
    x, y = np.log(np.asarray(regulariser, dtype=np.float64)), np.log(np.asarray(kl, dtype=np.float64))
    dx = x - x.mean()
    spread = float((dx**2).sum())
    slope = float((dx * y).sum()) / spread
    residual = y - y.mean() - slope * dx
    free = len(x) - 2
    se = float(np.sqrt((residual**2).sum() / free / spread)) if free > 0 else float("nan")
    return 0.0 - direction * slope, se
