"""Whether a metric got worse between two runs of the same cells: paired over seeds, against a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from xpo_bench.report.comparison import ROUNDING

Verdict = Literal["same", "equivalent", "improved", "regression", "undecided"]
LEVEL = 0.05
SEEDS, TASKS = 5, 4
"""Seeds and tasks that the test over tasks needs, each."""
FLIPS = 2**14
QUARTER = 0.25
"""Of a margin: what all tasks together have to move by; a change of rounding has a sign too."""


@dataclass(frozen=True)
class Difference:
    """New minus base over common seeds, as seen from what is worse: above 0 is worse; of metrics without a better side, any move.

    Args:
        mean: of new minus base, in the metric's unit. low, high: its 95 % interval. p: one-sided, of "it is not worse", two-sided
            where no side is better. All three are None from a single seed.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


def difference(values: Sequence[float], better: str | None) -> Difference:
    """Student's t over paired differences, shape (seeds,).

    Seeds that agree to the last bit leave no doubt, either way.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Difference(mean, None, None, None, 1)
    se = float(np.std(values, ddof=1)) / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1)) * se
    if abs(mean) <= ROUNDING:
        return Difference(mean, mean - half, mean + half, 1.0, n)
    worse = abs(mean) if better is None else mean if better == "lower" else -mean
    t = worse / se if se else math.copysign(math.inf, worse)
    p = float(student.sf(t, n - 1)) * (2 if better is None else 1)
    return Difference(mean, mean - half, mean + half, min(1.0, p), n)


def judge(found: Difference, margin: float, better: str | None, adjusted: float | None) -> Verdict:
    """The verdict on one metric.

    Args:
        adjusted: p, corrected for how many comparisons are made.

    Returns:
        `regression`: worse beyond the margin, and told apart from nothing at 5 % after the correction. `equivalent`: the whole
        95 % interval is within the margin on the side that is worse. `improved`: it is beyond it on the other. Else `undecided`.
    """
    worse = abs(found.mean) if better is None else found.mean if better == "lower" else -found.mean
    if adjusted is not None and adjusted < LEVEL and worse > margin:
        return "regression"
    if found.low is None or found.high is None:
        return "undecided"
    ends = (found.low, found.high) if better != "higher" else (-found.high, -found.low)
    if better is not None and ends[1] < -margin:
        return "improved"
    if ends[1] < margin and (better is not None or ends[0] > -margin):
        return "equivalent"
    return "undecided"


def sign_flip(values: Sequence[float], rng: np.random.Generator) -> float:
    """One-sided p of "the mean is not above 0" when the sign of every difference is as likely as not.

    Args:
        values: paired differences, shape (n,), seeds of all tasks together, each in units of its margin.

    Returns:
        exact up to 14 values, else over 16,384 draws of all signs, the observed ones among them.

    Source: Fisher 1935, §21 (the randomisation test of paired differences).
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) <= 14:
        signs = 1 - 2 * ((np.arange(2 ** len(x))[:, None] >> np.arange(len(x))) & 1)
        return float(np.mean(signs @ x >= x.sum() - ROUNDING))
    signs = rng.choice([-1.0, 1.0], size=(FLIPS - 1, len(x)))
    return float((1 + np.sum(signs @ x >= x.sum() - ROUNDING)) / FLIPS)
