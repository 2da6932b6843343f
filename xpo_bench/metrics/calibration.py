"""Whether the probability that an algorithm claims for a preference is the one people, or the world, had."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, Mask, masked_mean, metric
from xpo_bench.metrics.ties import probability_tolerance

BINS = 5
"""Bins of the claimed confidence in [½, 1]; folded, this is 10 bins of width .1 over [0, 1]."""


@metric("–", better="lower")
def calibration_error(ev: Evaluation) -> Array | None:
    """Calibration error of implied_preference q against p_chosen p: Σ fraction in bin · |mean q − mean p|.

    Which completion comes first is a convention, so every pair enters in both orientations, (q, p) and
    (1 − q, 1 − p), in 10 bins of equal width over [0, 1]. The two halves mirror each other, so it is computed
    on the confident side alone: q ≥ ½ in 5 bins, p turned along (½ where q is ½ up to rounding, 1e-9 in
    float64). A constant q = ½ is calibrated; `brier` tells it from a good forecast. Rows at p = ½ count. q is
    what the algorithm claims in its loss: its log-ratios are against the reference of the stage at hand.
    Source: Guo et al. 2017, eq. 3.
    """
    known = _known(ev)
    if known is None or ev.implied is None:
        return None
    q, p = np.where(known, ev.implied, 0.5), np.where(known, ev.p_chosen, 0.5)
    rounding = probability_tolerance(ev)
    q = np.where(np.abs(q - 0.5) <= rounding, 0.5, q)
    confident = np.maximum(q, 1.0 - q)
    agreed = np.where(q > 0.5, p, np.where(q < 0.5, 1.0 - p, 0.5))
    # a claim on a bin's edge, up to rounding, counts in the upper bin
    place = np.clip(np.floor((confident + rounding) * 2 * BINS).astype(int) - BINS, 0, BINS - 1)
    # Σ_b n_b/n · |mean_b q − mean_b p| = Σ_b |Σ_{i∈b} (q_i − p_i)| / n: no mean of an empty bin is needed
    total = np.zeros(len(q))
    for b in range(BINS):
        total += np.abs(np.where(known & (place == b), confident - agreed, 0.0).sum(-1))
    count = known.sum(-1)
    error: Array = np.divide(total, count, out=np.full(len(q), np.nan), where=count > 0)
    return error


@metric("–", better="lower")
def brier(ev: Evaluation) -> Array | None:
    """Mean of (implied_preference − p_chosen)² over pairs with a known probability; ¼: a coin on sure things.

    Log-ratios of the claim are against the reference of the stage at hand, as in the loss.
    Source: Brier 1950.
    """
    known = _known(ev)
    if known is None or ev.implied is None:
        return None
    return masked_mean((ev.implied - ev.p_chosen) ** 2, known)


def _known(ev: Evaluation) -> Mask | None:
    if not ev.paired or ev.implied is None:
        return None
    known: Mask = ev.valid & np.isfinite(ev.p_chosen) & np.isfinite(ev.implied)
    return known
