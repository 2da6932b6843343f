"""Curves: how they are read from a run directory, and what they are over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from xpo_bench.metrics.names import current
from xpo_bench.report.runs import SeedGroup
from xpo_bench.runner import columns
from xpo_bench.statistics import Estimate, estimate, mean

Point = Mapping[str, Any]
"""One evaluation: `step`, and every metric that was evaluated there; null where it is undefined."""
Points = Sequence[Point]
Curves = Callable[[str], Points]
"""Key of a cell -> its evaluations in order; none where it has no curve."""
REMEMBERED = 8192
"""Curves in memory at most: those of the rows that tables show, at 16 seeds."""

Band = tuple[float, float, float]
"""(mean, low, high); low = high = mean of a single run."""
Series = Mapping[float, Band]
"""Step -> a metric over seeds."""


def curve_reader(root: Path) -> Curves:
    """Reads `RUN/curves/KEY.parquet`, and remembers some; a run without one has no points."""

    @lru_cache(maxsize=REMEMBERED)
    def read(key: str) -> Points:
        path = root / "curves" / f"{key}.parquet"
        return [current(row) for row in columns.read(path).to_pylist()] if path.is_file() else []

    return read


def forgiving(read: Curves) -> Curves:
    """The same curves, where one that cannot be read is no curve: a report is not lost to a broken file."""

    def curve(key: str) -> Points:
        try:
            return [p for p in read(key) if p.get("step") is not None]
        except (OSError, ValueError):  # what pyarrow raises of a file that is no parquet
            return []

    return lru_cache(maxsize=None)(curve)


def mean_curve(curves: Sequence[Points], name: str) -> list[float | None]:
    """The mean over seeds of a column at the steps that all curves have; None where one does not know it."""
    by_step = [{row["step"]: row.get(name) for row in rows} for rows in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    out: list[float | None] = []
    for step in steps:
        # a mean over the seeds that are left would jump where one ends
        values = [rows[step] for rows in by_step]
        known = [v for v in values if v is not None]
        out.append(mean(known) if len(known) == len(values) else None)
    return out


def series(group: SeedGroup, curves: Curves) -> dict[str, Series]:
    """Metric -> step -> mean over seeds with its interval; `margin` is made of what the curves hold."""
    gathered: dict[str, dict[float, list[float]]] = {}
    for record in group.counted:
        points = curves(record.key)
        for point in points:
            row = {k: v for k, v in point.items() if k != "step" and v is not None and math.isfinite(v)}
            if (margin := _margin(points[0], row)) is not None:
                row["margin"] = margin
            for name, value in row.items():
                gathered.setdefault(name, {}).setdefault(point["step"], []).append(value)
    return {
        name: {step: _band(estimate(values)) for step, values in sorted(at.items())}
        for name, at in gathered.items()
    }


def _margin(first: Point, row: Point) -> float | None:
    """log π(chosen) − log π(rejected) less the same at step 0, where the policy is the reference:
    the margin of the log-ratios.
    """
    pair = ("chosen_logp", "rejected_logp")
    if any(name not in row or first.get(name) is None for name in pair):
        return None
    return float((row[pair[0]] - first[pair[0]]) - (row[pair[1]] - first[pair[1]]))


def _band(over_seeds: Estimate | None) -> Band:
    assert over_seeds is not None  # at least one value was gathered
    return (over_seeds.mean, *(over_seeds.interval or (over_seeds.mean, over_seeds.mean)))
