"""Whether the rejected completions are driven towards probability zero, since when, and how fast still."""

from __future__ import annotations

import math

import numpy as np

from xpo_bench.contract.metric import TIE, Array, Evaluation, History, masked_mean, metric
from xpo_bench.metrics.ties import below, tolerance

THRESHOLD = -math.log(1000.0)
"""A rejected completion is below it when its log-ratio per token, nats, is smaller."""
FALLING = -0.1
"""rejected_drift, nats, below which a run is still falling."""
SLOPE_POINTS = 3
"""Evaluation points that a slope needs at least."""


@metric("share", kind="series")
def below_threshold(ev: Evaluation) -> Array:
    """Fraction of pairs whose rejected log-ratio per token is below −ln 1000 now, by more than rounding."""
    length = np.maximum(ev.rejected_length, 1.0)
    per_token = (ev.rejected_logp - ev.rejected_ref) / length
    rounding = tolerance(ev, ev.rejected_logp / length, ev.rejected_ref / length)
    return masked_mean(below(per_token, THRESHOLD, rounding), ev.rejected_rows)


@metric("nats", kind="series")
def rejected_rounding(ev: Evaluation) -> Array:
    """Tolerance of the mean rejected log-probability at a point: a drift that is closer to −0.1 is −0.1."""
    return masked_mean(tolerance(ev, ev.rejected_logp), ev.rejected_rows)


@metric("nats", kind="curve")
def rejected_drift(history: History) -> Array:
    """Change of mean rejected_logp over the last fifth of the steps: < −0.1 still falling, near 0 converged.

    Read between the last evaluation at or before 0.8 of the steps and the last one. Absent where the curve
    has no evaluation to read it from (a policy that is set in closed form). Source: this suite; after Azar et
    al. 2023, §4.2 (without a finite optimum the drift never ends).
    """
    before, now = history.last_fifth("rejected_logp")
    return now - before


@metric("share", better="lower", kind="curve")
def collapsed(history: History) -> Array:
    """Fraction of collapsed pairs: final rejected log-ratio per token below −ln 1000, rejected_drift < −0.1.

    A rejected completion that has become unlikely and stays where it is has not collapsed.
    Absent where pairs are below the threshold and the drift is not known.
    Source: this suite; after Azar et al. 2023, §4.2.
    """
    fraction, drift = history.final("below_threshold"), rejected_drift(history)
    # the drift is a difference of two means, each known up to its own rounding
    rounding = 2 * np.nan_to_num(history.final("rejected_rounding"), nan=TIE)
    return np.where(
        np.isnan(drift) & (fraction > 0),
        np.nan,
        np.where(below(drift, FALLING, rounding) > 0, fraction, fraction * 0.0),
    )


@metric("step", kind="curve")
def collapse_step(history: History) -> Array:
    """First evaluation from which on, to the end, at least half the pairs are below −ln 1000 per token.

    Null if never. Censored, so that summaries give the fraction of runs and the median, never a mean.
    Source: this suite.
    """
    half = np.where(history.recorded, history.series["below_threshold"] >= 0.5, True)
    # true at k where all evaluations from k on are true: a running "and" from the end
    to_the_end = np.flip(np.logical_and.accumulate(np.flip(half, 0), 0), 0) & history.recorded
    return np.where(to_the_end.any(0), history.steps[to_the_end.argmax(0)], np.nan)


@metric("–", kind="curve")
def collapse_slope(history: History) -> Array:
    """Least-squares slope of mean rejected_logp on ln step over the evaluations of the last half of training.

    About −1/β for DPO under SGD at a constant rate in its late phase (per token when the loss is over
    tokens), about 0 for IPO. Null with fewer than 3 evaluations. Source: the gradient flow of the loss on a
    single pair, βh + exp(βh) = 1 + 2ηβ²t.
    """
    use = (
        history.recorded & (history.steps[:, None] >= 0.5 * history.final_step) & (history.steps[:, None] > 0)
    )
    x = np.where(use, np.log(np.maximum(history.steps, 1.0))[:, None], 0.0)
    y = np.where(use, history.series["rejected_logp"], 0.0)
    n = use.sum(0)
    dx = np.where(use, x - _total(x) / np.maximum(n, 1), 0.0)
    spread = _total(dx**2)
    enough = (n >= SLOPE_POINTS) & (spread > 0)
    slope: Array = np.divide(_total(dx * y), spread, out=np.full(len(n), np.nan), where=enough)
    return slope


def _total(values: Array) -> Array:
    """Sum over evaluations, (points, runs) -> (runs,)."""
    # numpy sums a contiguous axis in an order of its own: each run gets the order that it has alone
    total: Array = np.ascontiguousarray(values.T).sum(-1)
    return total
