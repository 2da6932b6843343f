"""What a metric is, what it reads, and how the numbers of a run are gathered along its curve.

Shapes: `R` runs evaluated together, `E` evaluation pairs (runs with fewer are padded), `P` prompts and
`A` actions of an enumerable world, `K` evaluation points. Log-probabilities are in nats, arrays float64.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Better = Literal["higher", "lower"]

TIE = 1e-9
"""Differences of log-probability of at most this many nats are rounding: they count as ties."""

# --------------------------------------------------------------------------- the input


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
    """

    logp: Array
    ref_logp: Array
    mask: Mask
    reward: Array | None
    prompt_weight: Array
    seen: Mask | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """R runs at one evaluation point.

    Args:
        step: optimizer steps done.
        chosen_logp, rejected_logp: summed log-probabilities under the policy, shape (R, E).
        chosen_ref, rejected_ref: the same under the task's INITIAL policy. chosen_length, rejected_length: tokens.
        p_chosen: true or empirical probability that chosen is preferred, NaN where unknown. Rows at exactly
            ½ have no chosen side: they count for calibration only.
        valid: false on padding rows.
        paired: false for unpaired labels; the two sides are then independent sets, with `valid` and
            `valid_rejected`, and `p_chosen` is not read.
        implied: probability that the algorithm claims for chosen, NaN where it claims none.
        world: exact distributions, where they are known.
        kl_strength: β of the objective E r − β·KL that the run optimises, NaN where none is, shape (R,).
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
        """Δ = log-ratio of chosen − log-ratio of rejected against the initial policy, nats, shape (R, E); pairs only."""
        value: Array = (self.chosen_logp - self.chosen_ref) - (self.rejected_logp - self.rejected_ref)
        return value


def masked_mean(values: Array, rows: Mask) -> Array:
    """Mean over the last axis of the rows that count, NaN where none does."""
    count = rows.sum(-1)
    total = np.where(rows, values, 0.0).sum(-1)
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


# --------------------------------------------------------------------------- the registry

Kind = Literal["point", "series", "curve", "note", "run"]


@dataclass(frozen=True)
class Metric:
    """A named quantity.

    `kind` says when it is computed: "point" at every evaluation, from an `Evaluation`; "curve" once at the
    end, from a `History`; "run" from counts and records, by whoever has them. Two kinds are not reported as
    metrics: "series" is kept at every point for the curve metrics, "note" goes among the notes of the record.
    """

    name: str
    unit: str
    better: Better | None
    doc: str
    kind: Kind
    function: Callable[..., Any] = field(repr=False)


METRICS: dict[str, Metric] = {}
_F = TypeVar("_F", bound=Callable[..., Any])


def metric(unit: str, better: Better | None = None, kind: Kind = "point", name: str | None = None) -> Callable[[_F], _F]:
    """Register a function as the metric of its name; its docstring is the definition.

    Raises:
        TypeError: without a docstring, or when the name is taken.
    """

    def register(function: _F) -> _F:
        key = name or function.__name__
        doc = inspect.getdoc(function)
        if not doc or key in METRICS:
            raise TypeError(f"metric {key!r}: {'the name is taken' if doc else 'a docstring is needed'}")
        METRICS[key] = Metric(key, unit, better, doc, kind, function)
        return function

    return register


def find(name: str) -> Metric | None:
    """The metric of a column; `heldout_x` is x on held-out pairs."""
    found = METRICS.get(name.removeprefix("heldout_"))
    return found if found is not None and found.kind in ("point", "curve", "run") else None


def describe() -> list[dict[str, str | None]]:
    """Name, unit, direction and definition of every reported metric, by name."""
    rows = sorted((m for m in METRICS.values() if m.kind in ("point", "curve", "run")), key=lambda m: m.name)
    return [{"name": m.name, "unit": m.unit, "better": m.better, "definition": m.doc} for m in rows]


def _kind(kind: Kind) -> list[Metric]:
    return [m for m in METRICS.values() if m.kind == kind]


# --------------------------------------------------------------------------- one point


def evaluate_point(ev: Evaluation) -> dict[str, Array]:
    """Every point metric that applies, shape (R,) each; NaN for runs that it does not apply to."""
    return _evaluate(ev, "point")


def _evaluate(ev: Evaluation, kind: Kind) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for m in _kind(kind):
        values: Array | None = m.function(ev)
        if values is not None and not np.isnan(values).all():
            out[m.name] = values
    return out


# --------------------------------------------------------------------------- the curve


@dataclass(frozen=True)
class History:
    """The evaluations of R runs in order.

    Args:
        steps: shape (K,), increasing. series: every point metric and kept quantity, shape (K, R), NaN where a
            run has none. recorded: whether the run was still finite at that point, shape (K, R).
    """

    steps: Array
    series: Mapping[str, Array]
    recorded: Mask

    @property
    def last(self) -> npt.NDArray[np.intp]:
        """Index of the last finite evaluation of each run, −1 where there is none, shape (R,)."""
        count = self.recorded.sum(0)
        return np.where(count > 0, count - 1, -1)  # a run that stops never resumes: its points are the first ones

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

        The first is read at the last evaluation at or before 0.8 of the steps the run made, and is NaN where
        that evaluation lies in the first half of the run and is not the very step: a policy that was set in
        closed form has no course to speak of.
        """
        due = 0.8 * self.final_step
        early = self.recorded & (self.steps[:, None] <= due + 1e-9)
        index = early.sum(0) - 1
        step = np.where(index >= 0, self.steps[index], -1.0)
        near = (step >= 0.5 * self.final_step) | (step == np.floor(due + 1e-9))
        return self.at(name, np.where(near & (self.final_step > 0), index, -1)), self.final(name)


class Curve:
    """Gathers the evaluations of R runs, and tells their final metrics.

    A run stops accumulating when it is no longer alive, or when one of its log-probabilities is not finite:
    its final metrics are those of its last finite evaluation.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._points: list[tuple[int, dict[str, Array], Mask]] = []
        self._history: History | None = None

    def add(self, ev: Evaluation, alive: Mask | None = None, extra: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Evaluate one point and keep it.

        Args:
            alive: runs that have not diverged, shape (R,); all of them by default.
            extra: metrics measured elsewhere, such as a Monte Carlo `kl` with its `kl_se`, shape (R,) each.

        Returns: the point metrics.

        A second evaluation at the step of the last one takes its place.
        """
        if self._points and self._points[-1][0] == ev.step:
            self._points.pop()
        recorded = _finite(ev) if alive is None else _finite(ev) & alive
        if self._points:
            recorded &= self._points[-1][2]
        values = evaluate_point(ev) | dict(extra or {})
        self._points.append((ev.step, _evaluate(ev, "series") | values, recorded))
        self._history = None
        return values

    def history(self) -> History:
        """Everything that was added so far."""
        if self._history is None:
            self._history = self._gather()
        return self._history

    def _gather(self) -> History:
        runs = len(self._points[0][2])
        names = dict.fromkeys(name for _, values, _ in self._points for name in values)
        absent = np.full(runs, np.nan)
        recorded = np.array([r for _, _, r in self._points])
        series = {n: np.where(recorded, [v.get(n, absent) for _, v, _ in self._points], np.nan) for n in names}
        return History(np.array([s for s, _, _ in self._points], dtype=np.float64), series, recorded)

    def final(self) -> dict[str, Array]:
        """Point metrics at the last finite evaluation, and the metrics of the whole curve, shape (R,) each.

        NaN is "does not apply", and "never" or "undefined" for collapse_step and collapse_slope.
        """
        if not self._points:
            return {}
        history = self.history()
        hidden = _hidden()
        return {n: history.final(n) for n in history.series if n not in hidden} | evaluate_curve(self.steps, history)

    def notes(self, run: int) -> dict[str, bool]:
        """What the record notes about the curve of one run (`kl_settled`); without what cannot be told."""
        if not self._points:
            return {}
        history = self.history()
        told = {m.name: float(m.function(history)[run]) for m in _kind("note")}
        return {name: bool(value) for name, value in told.items() if not np.isnan(value)}

    def last(self) -> list[dict[str, float]]:
        """Per run, the metrics that applied at the point that was added last; empty where it is not finite."""
        _, values, recorded = self._points[-1]
        shown = {n: v.tolist() for n, v in values.items() if n not in _hidden()}
        return [
            {n: v[run] for n, v in shown.items() if math.isfinite(v[run])} if keep else {}
            for run, keep in enumerate(recorded.tolist())
        ]

    def rows(self, run: int) -> list[dict[str, float | None]]:
        """One row per finite evaluation of a run: `step` and every metric that applied there."""
        history, hidden = self.history(), _hidden()
        columns = {n: v[:, run].tolist() for n, v in history.series.items() if n not in hidden}
        return [
            {"step": step} | {n: v[i] for n, v in columns.items() if math.isfinite(v[i])}
            for i, (step, _, recorded) in enumerate(self._points)
            if recorded[run]
        ]


def _hidden() -> set[str]:
    return {m.name for m in _kind("series")}


def evaluate_curve(steps: int, history: History) -> dict[str, Array]:
    """The metrics that need the whole curve, shape (R,) each; `steps` is the budget of the run."""
    return {m.name: m.function(history) for m in _kind("curve") if "rejected_logp" in history.series}


def _finite(ev: Evaluation) -> Mask:
    chosen = np.isfinite(ev.chosen_logp) | ~ev.chosen_rows
    rejected = np.isfinite(ev.rejected_logp) | ~ev.rejected_rows
    return np.asarray(chosen.all(-1) & rejected.all(-1))
