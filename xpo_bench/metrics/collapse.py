"""Whether the rejected completions are driven towards probability zero, since when, and how fast still."""

from __future__ import annotations

import math

import numpy as np

from xpo_bench.contract.metric import TIE, USUAL_SCALE, Array, Evaluation, History, Mask, masked_mean, metric
from xpo_bench.metrics.ties import below, tolerance

THRESHOLD = -math.log(1000.0)
"""A rejected completion is below it when its log-ratio per token, nats, is smaller."""
DRIFT = 0.01
"""Largest |rejected_drift|, in units of 1/β, of a run that stands still: 0.1 nats at β = .1.

The margin of DPO on certain preferences is ln(t)/β up to a constant, so that the last fifth of any long run
adds ln(1.25)/β = .22/β to it: twenty times as much, at every β.
"""
MOST = 0.5
"""A run has collapsed when at least this fraction of its pairs has."""
SLOPE_POINTS = 3
"""Evaluation points that a slope needs at least."""


@metric("share", kind="series")
def below_threshold(ev: Evaluation) -> Array:
    """Fraction of pairs whose rejected log-ratio per token is below −ln 1000 now, by more than rounding."""
    return masked_mean(pairs_below(ev), ev.rejected_rows)


@metric("nats", kind="series")
def rejected_rounding(ev: Evaluation) -> Array:
    """Tolerance of the mean rejected log-probability at a point, up to which a drift is at its limit."""
    return masked_mean(tolerance(ev, ev.rejected_logp), ev.rejected_rows)


@metric("nats", kind="series")
def rejected_moved(ev: Evaluation) -> Array:
    """Mean |log-ratio| of the rejected completions now: how far they went from the initial policy."""
    return masked_mean(np.abs(ev.rejected_logp - ev.rejected_ref), ev.rejected_rows)


@metric("tokens", kind="series")
def rejected_tokens(ev: Evaluation) -> Array:
    """Mean length of the rejected completions: what turns a mean log-probability into one per token."""
    return masked_mean(np.asarray(ev.rejected_length, dtype=np.float64), ev.rejected_rows)


@metric("nats", kind="curve")
def rejected_drift(history: History) -> Array:
    """Change of mean rejected_logp over the last fifth of the steps: < −0.01/β still falling, near 0 at rest.

    β is the declared strength per nat of the algorithm (`kl_strength`, else `regulariser`), .1 where it has
    none. Read between the last evaluation at or before 0.8 of the steps and the last one. Absent where these
    are fewer than ten steps apart, as in runs of fewer than about 50, and for a policy that is set in closed
    form. A small drift alone is not convergence: `notes.rejected_state` says what it is.
    Source: this suite; after Azar et al. 2023, §4.2 (without a finite optimum the drift never ends).
    """
    before, now = history.last_fifth("rejected_logp")
    return np.full_like(now, np.nan) if history.closed_form else now - before


@metric("share", better="lower", kind="curve")
def collapsed(history: History) -> Array:
    """Fraction of collapsed pairs: final rejected log-ratio per token below −ln 1000, and no end to its fall.

    The fall has no end where rejected_drift < −0.01/β (β as there), or where the run is saturated: its
    gradients have vanished without a minimum near. A rejected completion that has become unlikely and
    converges there has not collapsed. Absent where pairs are below the threshold and neither is known.
    Source: this suite; after Azar et al. 2023, §4.2.
    """
    fraction, drift = history.final("below_threshold"), rejected_drift(history)
    endless = falls(history) | stuck(history)
    unknown = np.isnan(drift) & ~endless & (fraction > 0)
    return np.where(unknown, np.nan, np.where(endless, fraction, fraction * 0.0))


@metric("step", kind="curve")
def collapse_step(history: History) -> Array:
    """First evaluation from which on at least half the pairs of a collapsed run are below −ln 1000 per token.

    To the end, that is: a dip that recovers is none. Null where `collapsed` is below one half, absent where
    that is not known. Censored, so that summaries give the fraction of runs and the median, never a mean.
    Source: this suite.
    """
    half = np.where(history.recorded, history.series["below_threshold"] >= MOST, True)
    # true at k where all evaluations from k on are true: a running "and" from the end
    to_the_end = np.flip(np.logical_and.accumulate(np.flip(half, 0), 0), 0) & history.recorded
    return np.where(collapsed(history) >= MOST, history.steps[to_the_end.argmax(0)], np.nan)


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


def pairs_below(ev: Evaluation) -> Array:
    """1 where a rejected log-ratio per token is below −ln 1000, by more than rounding, else 0: (R, E)."""
    length = np.maximum(ev.rejected_length, 1.0)
    per_token = (ev.rejected_logp - ev.rejected_ref) / length
    rounding = tolerance(ev, ev.rejected_logp / length, ev.rejected_ref / length)
    return below(per_token, THRESHOLD, rounding)


def drift_limit(history: History) -> Array:
    """|rejected_drift| up to which a run stands still, nats, shape (R,)."""
    runs = history.recorded.shape[1]
    return DRIFT * (np.full(runs, USUAL_SCALE) if history.scale is None else history.scale)


def rises(history: History) -> Mask:
    """Runs whose drift is above the limit by more than rounding, shape (R,)."""
    over: Mask = rejected_drift(history) > drift_limit(history) + _rounding(history)
    return over


def falls(history: History) -> Mask:
    """Runs whose drift is below minus the limit by more than rounding, shape (R,)."""
    under: Mask = rejected_drift(history) < -drift_limit(history) - _rounding(history)
    return under


def stuck(history: History) -> Mask:
    """Runs that are saturated, shape (R,): what still moves beyond the limit is not yet."""
    if history.saturated is None or history.closed_form:
        return np.zeros(history.recorded.shape[1], bool)
    return history.saturated & ~falls(history) & ~rises(history)


def _rounding(history: History) -> Array:
    # the drift is a difference of two means, each known up to its own rounding
    rounding: Array = 2 * np.nan_to_num(history.final("rejected_rounding"), nan=TIE)
    return rounding


def _total(values: Array) -> Array:
    """Sum over evaluations, (points, runs) -> (runs,)."""
    # numpy sums a contiguous axis in an order of its own: each run gets the order that it has alone
    total: Array = np.ascontiguousarray(values.T).sum(-1)
    return total
