"""Ratios of step times, measured in pairs of processes: pure functions over documented arrays.

The unit is the pair of new processes. Blocks inside one pair share what a process draws once and keeps
(addresses, hash seeds, the load of the machine), so that many blocks of one pair say how exactly it was
measured, and nothing about the next pair.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import trim_mean

from xpo_bench.statistics import SPEED_ALPHA, upper_quantile

TRIM = 0.2
"""Fraction of the blocks' log-ratios that is cut off at either end."""
SLOWER = 1.05
"""Estimates up to here are not worth an alarm, however certain."""
UNDERPOWERED = 1.25
"""Where the smallest ratio that the data could have shown is larger, they decide nothing."""

Verdict = Literal["pass", "improvement", "regression", "inconclusive", "candidate"]


class Ratio(TypedDict):
    """A ratio test in the JSON document."""

    estimate: float
    lower: float
    upper: float
    detectable: float
    pairs: int


@dataclass(frozen=True)
class RatioTest:
    """What a number of pairs says of the ratio new / old of the time of a step.

    Attributes:
        estimate: geometric mean over the pairs. lower, upper: one-sided 99 % bounds, each on its own.
        detectable: the smallest estimate that this spread over pairs would have let count as a slowdown.
        pairs: how many.
    """

    estimate: float
    lower: float
    upper: float
    detectable: float
    pairs: int

    @property
    def underpowered(self) -> bool:
        """Whether the data could not have shown a ratio that matters."""
        return not self.detectable <= UNDERPOWERED

    @property
    def slower(self) -> bool:
        """Lower bound above 1 and estimate above 1.05."""
        return self.lower > 1 and self.estimate > SLOWER

    @property
    def faster(self) -> bool:
        """The same in the other direction."""
        return self.upper < 1 and self.estimate < 1 / SLOWER

    def document(self) -> Ratio:
        """As JSON."""
        return {
            "estimate": self.estimate,
            "lower": self.lower,
            "upper": self.upper,
            "detectable": self.detectable,
            "pairs": self.pairs,
        }


def pair_log_ratio(old: ArrayLike, new: ArrayLike) -> float:
    """The 20 % trimmed mean of the log-ratios of interleaved blocks, in nats.

    Args:
        old, new: time per step of the blocks of one pair of processes, shape (B,), in the order of time.

    Raises:
        ValueError: the sides differ in length, or some time is not positive and finite.
    """
    a, b = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"blocks of shapes {a.shape} and {b.shape}: want as many on either side")
    if not (np.isfinite([a, b]).all() and (a > 0).all() and (b > 0).all()):
        raise ValueError("times per step must be positive")
    # Neighbouring blocks share the load of the machine, which cancels in their ratio; the trimmed mean drops
    # the ratios of which one block was disturbed.
    return float(trim_mean(np.log(b / a), TRIM))


def ratio_test(log_ratios: Sequence[float]) -> RatioTest:
    """A one-sided t over pairs at 1 %, in either direction.

    Args:
        log_ratios: one per pair of processes, in nats; two at least.

    Raises:
        ValueError: fewer than two pairs, which have no spread.
    """
    n = len(log_ratios)
    if n < 2:
        raise ValueError(f"{n} pairs: want two at least")
    mean = statistics.fmean(log_ratios)
    # mean ± t(1 − α, n − 1)·s/√n, in nats: bounds of the ratio after exp
    half = upper_quantile(n - 1, SPEED_ALPHA) * statistics.stdev(log_ratios, xbar=mean) / math.sqrt(n)
    return RatioTest(
        math.exp(mean), math.exp(mean - half), math.exp(mean + half), max(SLOWER, math.exp(half)), n
    )


def verdict(first: RatioTest, second: RatioTest | None = None) -> Verdict:
    """The verdict on one algorithm and workload.

    Pairs that could not have shown a ratio of 1.25 are underpowered, and inconclusive. A slowdown is a
    `candidate` regression until as many new pairs have been measured, and a regression when this replication
    shows it too, by itself. The first pairs alone decide on an improvement.

    Args:
        second: the replication, where the first pairs made a candidate.
    """
    if first.underpowered:
        return "inconclusive"
    if not first.slower:
        return "improvement" if first.faster else "pass"
    if second is None:
        return "candidate"
    if second.underpowered:
        return "inconclusive"
    return "regression" if second.slower else "pass"


def false_alarm_bound(comparisons: int) -> float:
    """Largest probability of any false regression among so many comparisons.

    Each needs two independent errors at 1 %; the union bound over comparisons does the rest.
    """
    return min(1.0, comparisons * SPEED_ALPHA**2)
