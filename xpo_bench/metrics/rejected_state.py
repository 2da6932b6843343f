"""What became of the rejected completions at the end of a run, in one word, or why that cannot be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np

from xpo_bench.contract.metric import FEWEST_STEPS, Array, History, Mask
from xpo_bench.metrics.collapse import DRIFT, MOST, collapsed, drift_limit, falls, rejected_drift, rises

State: TypeAlias = Literal["converged", "falling", "rising", "collapsed", "saturated"]
STATES: tuple[State, ...] = get_args(State)
STEADY = 0.1
"""Part of all that a run moved which the last fifth of one at rest may hold; of a steady fall it holds .2."""


@dataclass(frozen=True)
class Told:
    """One of `STATES`, or None and the reason why none can be told."""

    state: State | None
    reason: str | None = None


class RejectedStates:
    """What the rejected completions of every run do at its end; quantities of all runs are computed once.

    - collapsed, falling, rising: rejected_drift is beyond ±0.01/β; collapsed where at least half of the pairs
      are (`collapsed`).
    - saturated: it is not, but every gradient has vanished and no minimum is near. In exact arithmetic the
      run would go on; neither its drift nor more steps say anything.
    - converged: it is not, and the run has moved by ten times as much at least since its start.

    It cannot be told of a closed form, of a run of fewer than about 50 steps, and of one that has hardly
    moved: one with a learning rate far too small has no drift either.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.recorded = np.asarray(history.recorded.any(0))
        self.logp, self.moved = history.final("rejected_logp"), history.final("rejected_moved")

    @cached_property
    def drift(self) -> Array:
        return rejected_drift(self.history)

    @cached_property
    def limit(self) -> Array:
        return drift_limit(self.history)

    @cached_property
    def rises(self) -> Mask:
        return rises(self.history)

    @cached_property
    def falls(self) -> Mask:
        return falls(self.history)

    @cached_property
    def collapsed(self) -> Array:
        return collapsed(self.history)

    def of(self, run: int) -> Told:
        """The state of one run."""
        if not self.recorded[run]:
            return Told(None, "no finite evaluation")
        if math.isnan(float(self.logp[run])):
            return Told(None, "no rejected completion is evaluated")
        if self.history.closed_form:
            return Told(None, "a closed form, which no step trains")
        if self.rises[run]:
            return Told("rising")
        if self.falls[run]:
            return Told("collapsed" if self.collapsed[run] >= MOST else "falling")
        if self.history.saturated is not None and self.history.saturated[run]:
            return Told("saturated")
        drift = float(self.drift[run])
        if math.isnan(drift):
            return Told(None, _too_short(self.history, run))
        return _at_rest(drift, float(self.moved[run]), float(self.limit[run]))


def _at_rest(drift: float, moved: float, limit: float) -> Told:
    """Of a run whose drift is within the limit."""
    if moved <= limit:
        return Told(None, f"moved by no more than {DRIFT:g}/β since the start, as much as a drift may be")
    if abs(drift) > STEADY * moved:
        return Told(
            None, "a tenth or more of all that it moved is in the last fifth: a slow run, not at rest"
        )
    return Told("converged")


def _too_short(history: History, run: int) -> str:
    steps, window = float(history.final_step[run]), float(history.window[run])
    if steps == 0:
        return "no step was made"
    if window < FEWEST_STEPS:
        return f"a run of {steps:.0f} steps, whose last fifth has fewer than {FEWEST_STEPS}"
    return "no evaluation in the second half of the run before the last"
