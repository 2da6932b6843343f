"""How many pairs are at rest at the end of a run, and whether that is convergence or saturation.

`notes.rejected_state` says in one word what the mean of all pairs does; these count pair by pair, since a
mean at rest may hide a few pairs that still fall.
"""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, History, Mask, PairEnds, masked_mean, metric
from xpo_bench.metrics.collapse import drift_limit, rejected_drift, stuck
from xpo_bench.metrics.rejected_state import STEADY


@metric("share", kind="curve")
def converged(history: History) -> Array:
    """Fraction of pairs whose rejected completion is at rest at the end of a run that is not saturated.

    A pair is at rest when its log-ratio changed by no more than 0.01/β over the window in which
    rejected_drift is read, β as there. It has converged where that is no more than a tenth of what the
    rejected completions of its run moved on average since the start, either, and that is more than 0.01/β: a
    policy that has hardly moved has not converged. What is neither converged nor saturated still moves, or
    has hardly begun. A run of one pair is in the state `converged` (`notes.rejected_state`) exactly where
    this is 1; in a run in that state it is above 0 unless pairs move in opposite directions, and where it is
    below 1 some pairs still move. Absent exactly where rejected_drift is.
    Source: this suite.
    """
    pairs = _pairs(history)
    moved = history.final("rejected_moved")
    slow = np.abs(pairs.drift) > STEADY * moved[:, None]
    begun = moved > drift_limit(history)
    return _fraction(history, _rests(history) & ~slow & (begun & ~_vanished(history))[:, None])


@metric("share", kind="curve")
def saturated(history: History) -> Array:
    """Fraction of pairs whose rejected completion stops since every gradient of its run has vanished.

    At rest as in converged; no minimum is near, and in exact arithmetic the pair would go on. In a run in the
    state `saturated` (`notes.rejected_state`), so do all pairs below the threshold of collapsed, the steps of
    momentum that some still make notwithstanding: there this is at least collapsed, and converged is 0.
    Saturation is judged of whole runs: one that still moves some pairs is not saturated, and a pair of it
    without a gradient of its own counts as converged. A run of one pair is in the state `saturated` exactly
    where this is 1; in a run in that state it is above 0 unless pairs move in opposite directions, none of
    them below the threshold. Absent exactly where rejected_drift is.
    Source: this suite.
    """
    ended = _pairs(history).below & stuck(history)[:, None]
    return _fraction(history, (_rests(history) & _vanished(history)[:, None]) | ended)


def _pairs(history: History) -> PairEnds:
    """The ends of all pairs: of none where they were not followed."""
    none = np.empty((history.recorded.shape[1], 0))
    return history.pairs or PairEnds(none, none, none > 0)


def _rests(history: History) -> Mask:
    """Pairs whose change is within the limit, up to rounding, shape (R, E)."""
    pairs = _pairs(history)
    within: Mask = np.abs(pairs.drift) <= drift_limit(history)[:, None] + pairs.rounding
    return within


def _vanished(history: History) -> Mask:
    """Runs whose gradients have vanished, shape (R,)."""
    runs = history.recorded.shape[1]
    return np.zeros(runs, bool) if history.saturated is None else history.saturated


def _fraction(history: History, chosen: Mask) -> Array:
    """Of the pairs that count, shape (R,); NaN where there is no drift to judge by."""
    fraction = masked_mean(chosen.astype(np.float64), ~np.isnan(_pairs(history).drift))
    return np.where(np.isnan(rejected_drift(history)), np.nan, fraction)
