"""What a metric is and what it reads: the contract of metrics, beside those of algorithms and tasks.

Shapes: `R` runs evaluated together, `E` evaluation pairs (runs with fewer are padded), `P` prompts and
`A` actions of an enumerable world, `K` evaluation points. Log-probabilities are in nats, arrays float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Better = Literal["higher", "lower"]

TIE = 1e-9
"""Differences of log-probability of at most this many nats are rounding: they count as ties
(`metrics/ties.py` has the rule).
"""
FEWEST_STEPS = 10
"""Optimizer steps that the last fifth of a run needs before a change in it says where the run goes. Adam's
first moment remembers ten steps: fewer repeat one direction, and the noise of their batches with it.
"""
USUAL_SCALE = 10.0
"""Nats: 1/β at β = .1, the scale of log-ratios where an algorithm declares none."""


@dataclass(frozen=True, kw_only=True)
class WorldEvaluation:
    """The exact distributions of an enumerable world.

    Args:
        logp: log π(action | prompt), shape (R, P, A). ref_logp: the same under the task's initial policy,
            shape (P, A), −inf on absent actions. mask: true on present actions, shape (P, A).
        reward: true reward, shape (P, A), or None when it is not known.
        prompt_weight: weights of the prompts, each row summing to 1, shape (R, P): uniform over the
            prompts that occur in the run's training data.
        seen: actions that occur in the run's training data, shape (R, P, A), or None when that is not known.
        preference: true probability that the first action is preferred to the second, ½ on the diagonal and
            on absent actions, shape (P, A, A), or None where the world states no general preference.
        lengths: tokens of every action, shape (P, A), or None where each has one or they are not known.
    """

    logp: Array
    ref_logp: Array
    mask: Mask
    reward: Array | None
    prompt_weight: Array
    seen: Mask | None = None
    preference: Array | None = None
    lengths: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """R runs at one evaluation point.

    Args:
        step: optimizer steps done.
        chosen_logp, rejected_logp: summed log-probabilities under the policy, shape (R, E).
        chosen_ref, rejected_ref: the same under the task's INITIAL policy. chosen_length, rejected_length:
            tokens.
        p_chosen: true or empirical probability that chosen is preferred, NaN where unknown. Rows at exactly
            ½ have no chosen side: they count for calibration only.
        valid: false on padding rows.
        paired: false for unpaired labels; the two sides are then independent sets, with `valid` and
            `valid_rejected`, and `p_chosen` is not read.
        implied: probability that the algorithm claims for chosen, NaN where it claims none.
        world: exact distributions, where they are known.
        kl_strength: β of the objective E r − β·KL that the run optimises, NaN where none is, shape (R,).
        rounding: spacing at 1 of the dtype that the log-probabilities were computed in.
    """

    step: int
    chosen_logp: Array
    rejected_logp: Array
    chosen_length: Array
    rejected_length: Array
    chosen_ref: Array
    rejected_ref: Array
    p_chosen: Array
    valid: Mask
    valid_rejected: Mask | None = None
    paired: bool = True
    implied: Array | None = None
    world: WorldEvaluation | None = None
    kl_strength: Array | None = None
    rounding: float = float(np.finfo(np.float64).eps)

    @property
    def chosen_rows(self) -> Mask:
        """Rows that count for the metrics of chosen completions, shape (R, E)."""
        return self.valid & (self.p_chosen != 0.5) if self.paired else self.valid

    @property
    def rejected_rows(self) -> Mask:
        """Rows that count for the metrics of rejected completions, shape (R, E)."""
        if self.paired:
            return self.chosen_rows
        return self.valid if self.valid_rejected is None else self.valid_rejected

    @property
    def margin(self) -> Array:
        """Log-ratio of chosen minus that of rejected, nats, shape (R, E); pairs only."""
        value: Array = (self.chosen_logp - self.chosen_ref) - (self.rejected_logp - self.rejected_ref)
        return value


def four_fifths(steps: Array | float) -> Array | float:
    """The step up to which an evaluation lies before the last fifth of so many steps."""
    return 0.8 * steps + 1e-9


def masked_mean(values: Array, rows: Mask) -> Array:
    """Mean over the last axis of the rows that count, NaN where none does."""
    count = rows.sum(-1)
    total = np.where(rows, values, 0.0).sum(-1)
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


@dataclass(frozen=True)
class PairEnds:
    """The rejected completions of the pairs of R runs at the last finite evaluation, shape (R, E) each.

    Args:
        drift: change of the log-ratio between the two evaluations that `History.last_fifth` would read, nats;
            NaN without the first of them, and on rows that do not count.
        rounding: tolerance of the drift. below: the log-ratio per token is below −ln 1000.
    """

    drift: Array
    rounding: Array
    below: Mask


@dataclass(frozen=True)
class History:
    """The evaluations of R runs in order.

    Args:
        steps: shape (K,), increasing. series: every point metric and kept quantity, shape (K, R), NaN where a
            run has none. recorded: whether the run was still finite at that point, shape (K, R).
        scale: size of the log-ratios that each run's regulariser holds the policy to, nats, shape (R,): 1/β;
            None stands for 10 nats everywhere.
        saturated: runs whose gradients vanished at the end with no minimum near, shape (R,); None where that
            was not measured.
        closed_form: the policy was set, not trained: it stands still from the first step on.
        pairs: what every pair's rejected completion does at the end; None where pairs were not followed.
    """

    steps: Array
    series: Mapping[str, Array]
    recorded: Mask
    scale: Array | None = None
    saturated: Mask | None = None
    closed_form: bool = False
    pairs: PairEnds | None = None

    @property
    def last(self) -> npt.NDArray[np.intp]:
        """Index of the last finite evaluation of each run, −1 where there is none, shape (R,)."""
        count = self.recorded.sum(0)
        return np.where(
            count > 0, count - 1, -1
        )  # a run that stops never resumes: its points are the first ones

    @property
    def final_step(self) -> Array:
        """Step of the last finite evaluation of each run, shape (R,)."""
        return np.where(self.last >= 0, self.steps[self.last], np.nan)

    def at(self, name: str, index: npt.NDArray[np.intp]) -> Array:
        """The value of a series for each run at its own index, NaN at −1, shape (R,)."""
        values = self.series.get(name)
        if values is None:
            return np.full(index.shape, np.nan)
        return np.where(index >= 0, values[index, np.arange(len(index))], np.nan)

    def final(self, name: str) -> Array:
        """The value at the last finite evaluation, shape (R,)."""
        return self.at(name, self.last)

    def last_fifth(self, name: str) -> tuple[Array, Array]:
        """(value four fifths into the run, final value), shape (R,) each.

        The first is read at the last evaluation at or before 0.8 of the steps the run made. It is NaN where
        that evaluation lies in the first half of the run, or fewer than ten steps (`FEWEST_STEPS`) before the
        end: two numbers a step or two apart do not tell a run at rest from one that has just begun. A run
        needs about 50 steps.
        """
        index, step = self._four_fifths()
        near = (step >= 0.5 * self.final_step) & (self.final_step - step >= FEWEST_STEPS)
        return self.at(name, np.where(near, index, -1)), self.final(name)

    @property
    def window(self) -> Array:
        """Steps between the two evaluations that `last_fifth` would read, NaN without any, shape (R,)."""
        return self.final_step - self._four_fifths()[1]

    def _four_fifths(self) -> tuple[npt.NDArray[np.intp], Array]:
        """(index, step) of the last evaluation at or before 0.8 of the steps made; (−1, NaN) without one."""
        early = self.recorded & (self.steps[:, None] <= four_fifths(self.final_step))
        index = early.sum(0) - 1
        return index, np.where(index >= 0, self.steps[index], np.nan)


Kind = Literal["point", "series", "curve", "note", "run"]
_F = TypeVar("_F", bound=Callable[..., object])


@dataclass(frozen=True)
class Definition:
    """What there is to know of a named quantity without computing it."""

    name: str
    unit: str
    better: Better | None
    doc: str


@dataclass(frozen=True)
class Metric(Definition):
    """A named quantity.

    `kind` says when it is computed: "point" at every evaluation, from an `Evaluation`; "curve" once at the
    end, from a `History`; "run" from counts and records, by whoever has them. Two kinds are not reported as
    metrics: "series" is kept at every point for the curve metrics, "note" goes among the notes of the record.
    A plugin's metrics are points or curves.
    """

    kind: Kind
    function: Callable[..., Any] = field(repr=False)


def metric(
    unit: str, better: Better | None = None, kind: Kind = "point", name: str | None = None
) -> Callable[[_F], _F]:
    """Say what a function measures; its docstring is the definition, and its name the metric's.

    Args:
        unit: of the values, `nats` or `–` for numbers without one. better: which direction, if any.
        kind: "point": the function takes an `Evaluation`; "curve": it takes a `History`. It returns float64
            values of shape (R,), NaN for runs that it does not apply to, or None where it applies to none.

    Raises:
        TypeError: without a docstring.
    """

    def describe(function: _F) -> _F:
        doc, key = inspect.getdoc(function), name or function.__name__
        if not doc:
            raise TypeError(f"metric {key!r}: a docstring is needed, its definition")
        function.__dict__["metric"] = Metric(key, unit, better, doc, kind, function)
        return function

    return describe


def metric_of(function: object) -> Metric | None:
    """The declaration that `metric` attached to a function; None without one."""
    found = getattr(function, "metric", None)
    return found if isinstance(found, Metric) else None
