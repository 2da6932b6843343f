"""How many pairs are at rest at the end of a run, and whether that is convergence or saturation.

`notes.rejected_state` says in one word what the mean of all pairs does; these count pair by pair, since a
mean at rest may hide a few pairs that still fall.
"""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, History, Mask, masked_mean, metric
from xpo_bench.metrics.collapse import drift_limit, rejected_drift
from xpo_bench.metrics.rejected_state import STEADY


@metric("share", kind="curve")
def converged(history: History) -> Array:
    """Fraction of pairs whose rejected completion is at rest at the end of a run that is not saturated.

    A pair is at rest when its log-ratio changed by no more than 0.01/β over the window in which
    rejected_drift is read, β as there. It has converged where that is no more than a tenth of what the rejected completions
    of its run moved on average since the start, either, and that is more than 0.01/β: a policy that has
    hardly moved has not converged. What is neither converged nor saturated still moves, or has hardly begun.
    A run of one pair is in the state `converged` (`notes.rejected_state`) exactly where this is 1; in a run
    in that state it is above 0 unless pairs move in opposite directions, and where it is below 1 some pairs
    still move. Absent exactly where rejected_drift is.
    Source: this suite.
    """
    moved = history.final("rejected_moved")
    slow = np.abs(_change(history)) > STEADY * moved[:, None]
    begun = moved > drift_limit(history)
    return _fraction(history, _rests(history) & ~slow & (begun & ~_saturated(history))[:, None])


@metric("share", kind="curve")
def saturated(history: History) -> Array:
    """Fraction of pairs whose rejected completion is at rest since every gradient of its run has vanished.

    At rest as in converged; no minimum is near, and in exact arithmetic the pair would go on. A pair below
    the threshold of collapsed that is at rest in a saturated run is saturated and not converged. Saturation
    is judged of whole runs: one that still moves some pairs is not saturated, and a pair of it without a
    gradient of its own counts as converged. A run of one pair is in the state `saturated` exactly where this
    is 1; in a run in that state it is above 0 unless pairs move in opposite directions, and converged is 0.
    Absent exactly where rejected_drift is.
    Source: this suite.
    """
    return _fraction(history, _rests(history) & _saturated(history)[:, None])


def _change(history: History) -> Array:
    """What every pair moved, shape (R, E): of no pair where they were not followed."""
    runs = history.recorded.shape[1]
    return np.empty((runs, 0)) if history.pair_drift is None else history.pair_drift


def _rests(history: History) -> Mask:
    """Pairs whose change is within the limit, up to rounding, shape (R, E)."""
    rounding = 0.0 if history.pair_rounding is None else history.pair_rounding
    within: Mask = np.abs(_change(history)) <= drift_limit(history)[:, None] + rounding
    return within


def _saturated(history: History) -> Mask:
    """Runs whose gradients have vanished, shape (R,)."""
    runs = history.recorded.shape[1]
    return np.zeros(runs, bool) if history.saturated is None else history.saturated


def _fraction(history: History, pairs: Mask) -> Array:
    """Of the pairs that count, shape (R,); NaN where there is no drift to judge by."""
    fraction = masked_mean(pairs.astype(np.float64), ~np.isnan(_change(history)))
    return np.where(np.isnan(rejected_drift(history)), np.nan, fraction)
