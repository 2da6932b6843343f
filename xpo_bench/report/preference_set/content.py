"""The report on a preference set as data: facts, and quantities with what each means. Every renderer takes it
whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xpo_bench.metrics.kl import kl_se
from xpo_bench.report.format import ABSENT, number
from xpo_bench.report.preference_set.meaning import MEANING
from xpo_bench.statistics import quantile

SCHEMA = 1


@dataclass(frozen=True)
class Quantity:
    """One property of a set.

    Args:
        name: key of the JSON document. title: what the table calls it. shown: its value in words.
        value: its value as data. meaning: one sentence on what it means for which algorithms.
    """

    name: str
    title: str
    shown: str
    value: Mapping[str, Any]
    meaning: str


@dataclass(frozen=True)
class DatasetReport:
    """A preference set: `facts` say what was read and how, `quantities` what it is like."""

    facts: Mapping[str, Any]
    quantities: tuple[Quantity, ...]

    def document(self) -> dict[str, Any]:
        """As one JSON document."""
        return {
            "schema": SCHEMA,
            **self.facts,
            **{q.name: {**q.value, "meaning": q.meaning} for q in self.quantities},
        }


def quantity(
    name: str, title: str, shown: str, value: Mapping[str, Any], meaning: str | None = None
) -> Quantity:
    """A quantity with the sentence of its name, or of another one."""
    return Quantity(name, title, shown, value, MEANING[meaning or name])


def by_unit(
    name: str, title: str, shown: str, value: Mapping[str, Any], meaning: str | None = None
) -> Quantity:
    """A quantity in characters, to which `with_tokens` adds what it is in tokens."""
    return quantity(name, title, f"characters: {shown}", {"characters": value, "tokens": None}, meaning)


def with_tokens(q: Quantity, shown: str, value: Mapping[str, Any]) -> Quantity:
    """The same quantity, also in tokens."""
    return replace(q, shown=f"{q.shown}\ntokens: {shown}", value={**q.value, "tokens": value})


def of(count: int, total: int, what: str) -> str:
    """`552 of 8,151 rows (6.8 %)`."""
    fraction = f" ({number(100 * count / total)} %)" if total and count else ""
    return f"{count:,} of {total:,} {what}{fraction}"


def fraction(count: int, total: int) -> float | None:
    """The fraction, None of nothing."""
    return count / total if total else None


def accuracy(values: npt.NDArray[np.float64], clusters: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Mean and 95 % interval, clustered by prompt: Student's t with one degree less than there are clusters.

    With one cluster the values themselves are taken for independent; the interval is None where nothing can
    be said, as where all values are equal: their spread is then no estimate of anything.
    """
    n, count = len(values), len(set(clusters.tolist()))
    if not n:
        return {"accuracy": None, "ci95": None, "n": 0, "clusters": 0}
    mean, se = float(values.mean()), kl_se(values, clusters) if n > 1 else float("nan")
    half = quantile((count if count > 1 else n) - 1) * se if n > 1 else float("nan")
    interval = [mean - half, mean + half] if np.isfinite(half) and np.ptp(values) > 0 else None
    return {"accuracy": mean, "ci95": interval, "n": n, "clusters": count}


def accuracy_shown(found: Mapping[str, Any]) -> str:
    """`0.717 (95 %: 0.68 to 0.754)`."""
    if found["accuracy"] is None:
        return ABSENT
    interval = found["ci95"]
    return number(found["accuracy"]) + (
        f" (95 %: {number(interval[0])} to {number(interval[1])})" if interval else ""
    )


def spread(values: Iterable[float] | npt.NDArray[Any]) -> dict[str, float | None]:
    """5 % quantile, median, 95 % quantile and maximum."""
    found = np.asarray(values, dtype=np.float64)
    if not found.size:
        return {"p5": None, "median": None, "p95": None, "max": None}
    low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
    return {"p5": float(low), "median": float(middle), "p95": float(high), "max": float(found.max())}


def lengths_shown(found: Mapping[str, float | None]) -> str:
    """`64 / 148 / 265`: median, 95 % and maximum."""
    return " / ".join(
        number(found[key]) if (found[key] or 0) < 1000 else f"{found[key]:,.0f}"
        for key in ("median", "p95", "max")
    )


def reasons_shown(reasons: Mapping[str, int]) -> str:
    """`7 chosen equals rejected, 1 empty prompt`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
