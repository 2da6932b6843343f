"""Metrics of plugins: one that fails costs itself alone, and changes nothing of what others read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, History, Metric

_T = TypeVar("_T", Evaluation, History)


class PluginMetrics:
    """The metrics of plugins along one curve.

    Attributes:
        errors: metric -> its first failure, in a line; its values are left out where it fails.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.points = [m for m in metrics if m.kind == "point"]
        self.curves = [m for m in metrics if m.kind == "curve"]
        self.errors: dict[str, str] = {}

    def point(self, ev: Evaluation) -> dict[str, Array]:
        """Values at an evaluation, shape (R,) each."""
        return self._all(self.points, ev, len(ev.chosen_logp), f" at step {ev.step}")

    def curve(self, history: History) -> dict[str, Array]:
        """Values of whole curves, shape (R,) each."""
        return self._all(self.curves, history, history.recorded.shape[1], "")

    def _all(self, metrics: Sequence[Metric], given: _T, runs: int, where: str) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for m in metrics:
            try:
                found = m.function(read_only(given))
                # a copy: what a plugin keeps of its values cannot change what is recorded
                values = None if found is None else np.array(found, dtype=np.float64)
                if values is not None and values.shape != (runs,):
                    raise ValueError(
                        f"returned the shape {values.shape}, expected one value per run, {(runs,)}"
                    )
            except (Exception, SystemExit) as error:
                told = " ".join(str(error).split())[:300] or "no message"
                self.errors.setdefault(m.name, f"{type(error).__name__}{where}: {told}")
                continue
            if values is not None and not np.isnan(values).all():
                out[m.name] = values
        return out


def read_only(given: _T) -> _T:
    """The same numbers behind arrays that refuse to be written."""
    return replace(given, **{f.name: _sealed(getattr(given, f.name)) for f in fields(given)})


def _sealed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _sealed(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, dict | MappingProxyType):
        return MappingProxyType({name: _sealed(v) for name, v in value.items()})
    return value
