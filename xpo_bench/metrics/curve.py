"""How the numbers of a run are gathered: the metrics of one point, and of the curve that points make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, History, Kind, Mask, Metric
from xpo_bench.metrics.pair_drift import PairDrift
from xpo_bench.metrics.plugin_metrics import PluginMetrics
from xpo_bench.metrics.registry import of_kind
from xpo_bench.metrics.rejected_state import RejectedStates


def evaluate_point(ev: Evaluation) -> dict[str, Array]:
    """Every point metric that applies, shape (R,) each; NaN for runs that it does not apply to."""
    return _evaluate(ev, "point")


def _evaluate(ev: Evaluation, kind: Kind) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for m in of_kind(kind):
        values: Array | None = m.function(ev)
        if values is not None and not np.isnan(values).all():
            out[m.name] = values
    return out


class Curve:
    """Gathers the evaluations of R runs, and tells their final metrics.

    A run stops accumulating when it is no longer alive, or when one of its log-probabilities is not finite:
    its final metrics are those of its last finite evaluation.

    Args:
        steps: the budget of the runs. third_party: metrics of plugins. scale, closed_form: as in `History`.

    Attributes:
        saturated: as in `History`; `judge` sets it.
    """

    def __init__(
        self,
        steps: int,
        third_party: Sequence[Metric] = (),
        *,
        scale: Array | None = None,
        closed_form: bool = False,
    ) -> None:
        self.steps = steps
        self.scale, self.closed_form = scale, closed_form
        self.saturated: Mask | None = None
        self.third_party = PluginMetrics(third_party)
        self._points: list[tuple[int, dict[str, Array], Mask]] = []
        self._pairs = PairDrift()
        self._history: History | None = None
        self._noted: tuple[History, tuple[dict[str, Array], RejectedStates, Array]] | None = None

    def add(
        self, ev: Evaluation, alive: Mask | None = None, extra: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
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
        if self._points:  # a run that stopped never resumes
            recorded &= self._points[-1][2]
        values = evaluate_point(ev) | dict(extra or {}) | self.third_party.point(ev)
        self._pairs.add(ev, recorded)
        self._points.append((ev.step, _evaluate(ev, "series") | values, recorded))
        self._history = None
        return values

    @property
    def recorded(self) -> Mask:
        """Whether the last point is one of the curve of each run, shape (R,)."""
        return self._points[-1][2]

    def judge(self, saturated: Mask) -> None:
        """Say which runs are saturated, shape (R,)."""
        self.saturated, self._history = saturated, None

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
        series = {
            n: np.where(recorded, [v.get(n, absent) for _, v, _ in self._points], np.nan) for n in names
        }
        steps = np.array([s for s, _, _ in self._points], dtype=np.float64)
        return History(
            steps, series, recorded, self.scale, self.saturated, self.closed_form, self._pairs.ends
        )

    def final(self) -> dict[str, Array]:
        """Point metrics at the last finite evaluation, and the metrics of the whole curve, shape (R,) each.

        NaN is "does not apply", and "never" or "undefined" for collapse_step and collapse_slope.
        """
        if not self._points:
            return {}
        history = self.history()
        hidden = _hidden()
        own = {n: history.final(n) for n in history.series if n not in hidden} | evaluate_curve(
            self.steps, history
        )
        return own | self.third_party.curve(history)

    def notes(self, run: int) -> dict[str, bool | float | str]:
        """What the record notes about the curve of one run; without what cannot be told.

        `kl_settled`, `rejected_state` or `rejected_state_reason`, and `rejected_length`, the mean tokens of
        the rejected completions.
        """
        if not self._points:
            return {}
        own, states, lengths = self._notes()
        out: dict[str, bool | float | str] = {}
        for name, values in own.items():
            value = float(values[run])
            if not math.isnan(value):
                out[name] = bool(value)
        told = states.of(run)
        if told.state:
            out["rejected_state"] = told.state
        elif told.reason:
            out["rejected_state_reason"] = told.reason
        length = float(lengths[run])
        return out | ({} if math.isnan(length) else {"rejected_length": length})

    def _notes(self) -> tuple[dict[str, Array], RejectedStates, Array]:
        """What the notes of all runs are read from: computed once, not for every run."""
        history = self.history()
        if self._noted is None or self._noted[0] is not history:
            own = {m.name: m.function(history) for m in of_kind("note")}
            self._noted = history, (own, RejectedStates(history), history.final("rejected_tokens"))
        return self._noted[1]

    def last(self) -> list[dict[str, float]]:
        """Per run, the metrics that applied at the last point; empty where that is not finite."""
        _, values, recorded = self._points[-1]
        shown = {n: v.tolist() for n, v in values.items() if n not in _hidden()}
        return [
            {n: v[run] for n, v in shown.items() if math.isfinite(v[run])} if keep else {}
            for run, keep in enumerate(recorded.tolist())
        ]

    def rows(self, run: int) -> list[dict[str, float | None]]:
        """One row per finite evaluation of a run: `step` and every metric that applied there."""
        if not self._points:
            return []
        history, hidden = self.history(), _hidden()
        columns = {n: v[:, run].tolist() for n, v in history.series.items() if n not in hidden}
        return [
            {"step": step} | {n: v[i] for n, v in columns.items() if math.isfinite(v[i])}
            for i, (step, _, recorded) in enumerate(self._points)
            if recorded[run]
        ]


def _hidden() -> set[str]:
    return {m.name for m in of_kind("series")}


def evaluate_curve(steps: int, history: History) -> dict[str, Array]:
    """The metrics that need the whole curve, shape (R,) each; `steps` is the budget of the run."""
    return {m.name: m.function(history) for m in of_kind("curve") if "rejected_logp" in history.series}


def _finite(ev: Evaluation) -> Mask:
    """Runs whose log-probabilities are finite on every row that counts, shape (R,)."""
    chosen = np.isfinite(ev.chosen_logp) | ~ev.chosen_rows
    rejected = np.isfinite(ev.rejected_logp) | ~ev.rejected_rows
    return np.asarray(chosen.all(-1) & rejected.all(-1))
