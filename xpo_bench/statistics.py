"""Every statistical rule of the suite, over plain numbers: intervals, tests, corrections, resampling."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

ALPHA = 0.05
"""Significance level of every test that a report shows."""
CONFIDENCE = 1 - ALPHA
"""Level of every interval that a report shows."""
SPEED_ALPHA = 0.01
"""Level of a one-sided bound of a ratio of step times; a regression of speed needs two such bounds."""
ROUNDING = 1e-12
"""Differences of means up to this size are none."""
LARGEST_SQUARED = 2.0**511
"""The square of a number below it is finite."""
MANY = 20
"""Seeds from which on a bootstrap interval has its coverage: 93.6 % at 10, 95.4 % at 20 in simulation."""
RESAMPLES = 2000
FLIPS = 2**14

# --------------------------------------------------------------------------- means over runs


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs and the half width of its 95 % interval, None from a single run."""

    mean: float
    half: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, or None."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)


@lru_cache(maxsize=1024)
def quantile(freedom: int) -> float:
    """Of Student's t, for a two-sided interval at `CONFIDENCE`."""
    return float(scipy.special.stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def upper_quantile(freedom: int, alpha: float) -> float:
    """Of Student's t: the value that it exceeds with probability `alpha`, for a one-sided bound."""
    return float(scipy.special.stdtrit(freedom, 1 - alpha))


def mean(values: Sequence[float]) -> float:
    """Of numbers, at least one: also where their sum is beyond the largest double; NaN of ∞ and −∞."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        # scaled by a power of two, which rounds nothing
        return math.fsum(math.ldexp(v, -64) for v in values) / len(values) * 2.0**64
    except ValueError:  # what fsum says of ∞ − ∞
        return math.nan


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and Student-t interval of the values that are known; None when none is.

    The interval of a fraction may reach below 0 or above 1: it is not clipped.
    """
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    n, middle = len(known), mean(known)
    if n == 1:
        return Estimate(middle, None, 1)
    # s = √(Σ(v − v̄)²/(n − 1)); hypot does not overflow, and takes less time than the exact statistics.stdev
    deviation = math.hypot(*[v - middle for v in known]) / math.sqrt(n - 1)
    half = quantile(n - 1) * deviation / math.sqrt(n)
    return Estimate(middle, half, n)


def censored(values: Iterable[float | None]) -> dict[str, Any]:
    """Fraction of runs in which an event happened, and the median step, None where that is "never".

    "Never" counts as later than any step, so that censored runs are not left out.
    """
    steps = [math.inf if v is None else float(v) for v in values]
    if not steps:
        return {"share": None, "median": None, "n": 0}
    median = statistics.median(steps)
    happened = sum(math.isfinite(s) for s in steps)
    return {
        "share": happened / len(steps),
        "median": median if math.isfinite(median) else None,
        "n": len(steps),
    }


# --------------------------------------------------------------------------- several against one baseline


def p_value(difference: Estimate, variance: float = 0.0) -> float | None:
    """Two-sided p of "no difference" by Student's t over the runs; None from a single run.

    Without more variance it is below 0.05 exactly where the 95 % interval excludes zero; runs that agree then
    leave no doubt either way.

    Args:
        variance: of the mean, from a source that all runs share, so that their spread does not show it.

    Source: degrees of freedom after Satterthwaite 1946, the shared variance taken as known.
    """
    if difference.half is None:
        return None
    if abs(difference.mean) <= ROUNDING:
        return 1.0
    free = float(difference.n - 1)
    error = difference.half / quantile(difference.n - 1)
    spread = error**2 if error < LARGEST_SQUARED else math.inf
    total = spread + variance
    if total == math.inf:  # nothing stands out of it
        return 1.0
    if total == 0:
        return 0.0
    statistic = abs(difference.mean) / math.sqrt(total)
    # Satterthwaite with a known shared variance V: ν·((s²/n + V)/(s²/n))², normal as V takes over.
    # scipy.stats would have both tails, after a second of imports.
    return 2 * float(
        scipy.special.stdtr(free * (total / spread) ** 2, -statistic)
        if spread
        else scipy.special.ndtr(-statistic)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the order given.

    Source: Holm 1979. statsmodels has it too, and would cost every table a second of imports.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    # p̃ of rank j is max over ranks k ≤ j of (m − k + 1)·p(k): step-down, and monotone in p
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """Algorithms against one of them: `tested` holds p of each, raw and corrected, without single runs."""

    tested: Mapping[Hashable, tuple[float, float]]

    def excludes_zero(self, g: Hashable) -> bool:
        """Whether the 95 % interval of its difference excludes zero, taken alone."""
        return g in self.tested and self.tested[g][0] < ALPHA

    def holds(self, g: Hashable) -> bool:
        """Whether the difference is significantly different from zero after the correction."""
        return g in self.tested and self.tested[g][1] < ALPHA

    @property
    def compared(self) -> str:
        """How many comparisons were made."""
        return f"{len(self.tested)} comparisons"

    @property
    def corrected(self) -> str:
        """The sentence on the correction; empty where there is one comparison."""
        return f"Holm's correction for {self.compared}" if len(self.tested) > 1 else ""


def against_baseline(
    differences: Sequence[tuple[Any, Estimate]], variance: Mapping[Any, float] | None = None
) -> Comparison:
    """Test the difference of each group from the one they share; `variance` is that of `p_value`."""
    found = [(g, p) for g, e in differences if (p := p_value(e, (variance or {}).get(g, 0.0))) is not None]
    adjusted = holm([p for _, p in found])
    return Comparison({g: (p, q) for (g, p), q in zip(found, adjusted, strict=True)})


# --------------------------------------------------------------------------- paired differences


@dataclass(frozen=True)
class Difference:
    """New minus base over common seeds, in the metric's unit.

    Attributes:
        mean: over seeds. low, high: its 95 % interval. p: one-sided, of "it is not worse"; two-sided for a
            metric with no preferred direction. low, high and p are None from a single seed.
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
    n, middle = len(values), mean(values)
    if n == 1:
        return Difference(middle, None, None, None, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # near the largest double
        se = float(np.std(values, ddof=1)) / math.sqrt(n)
    half = quantile(n - 1) * se
    if abs(middle) <= ROUNDING:
        return Difference(middle, middle - half, middle + half, 1.0, n)
    # t = d̄/(s/√n), signed so that large is worse
    worse = abs(middle) if better is None else middle if better == "lower" else -middle
    t = worse / se if se else math.copysign(math.inf, worse)
    p = float(scipy.special.stdtr(n - 1, -t)) * (2 if better is None else 1)
    return Difference(middle, middle - half, middle + half, min(1.0, p), n)


def sign_flip(values: Sequence[float], rng: np.random.Generator) -> float:
    """One-sided p of "the mean is not above 0" when the sign of every difference is as likely as not.

    Args:
        values: paired differences, shape (n,), seeds of all tasks together, each in units of its margin.

    Returns:
        exact up to 14 values, else over 16,384 draws of all signs, the observed ones among them.

    Source: Fisher 1935, §21 (the randomisation test of paired differences).
    """
    x = np.asarray(values, dtype=np.float64)
    # Under the null every of the 2ⁿ sign vectors is as likely: p is the fraction with a sum as large as ours.
    if len(x) <= 14:
        signs = 1 - 2 * ((np.arange(2 ** len(x))[:, None] >> np.arange(len(x))) & 1)
        return float(np.mean(signs @ x >= x.sum() - ROUNDING))
    signs = rng.choice([-1.0, 1.0], size=(FLIPS - 1, len(x)))
    return float((1 + np.sum(signs @ x >= x.sum() - ROUNDING)) / FLIPS)


# --------------------------------------------------------------------------- resampling


def iqm(values: ArrayLike) -> tuple[float, float, float]:
    """Interquartile mean of `values`, shape (runs,), and its 95 % bootstrap interval: (iqm, low, high).

    The resampling is seeded from the sorted values, so that the order of runs changes nothing.

    Source: Agarwal et al. 2021, section 4.3.
    """
    from scipy.stats import trim_mean  # imported where it is needed: it takes as long as a table does

    x = np.sort(np.asarray(values, dtype=np.float64))
    seed = int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=8).digest(), "big")
    drawn = x[np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))]
    low, high = np.quantile(trim_mean(drawn, 0.25, axis=1), [ALPHA / 2, 1 - ALPHA / 2])
    return float(trim_mean(x, 0.25)), float(low), float(high)


def improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) over all pairs of a run of `x`, shape (n,), and one of `y`, shape (m,); ties count a half.

    Source: Agarwal et al. 2021, section 4.3; Mann & Whitney 1947.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    # U = Σ ranks of x − n(n + 1)/2 counts the pairs with X > Y, mean ranks the ties as halves; P = U/(n·m)
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))
