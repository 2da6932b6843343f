"""Ratios of step times, measured in pairs of processes: pure functions over documented arrays.

The unit is the pair of fresh processes. Blocks inside one pair share what a process draws once and keeps
(addresses, hash seeds, what else the machine is at), so that many blocks of one pair say how exactly that
pair was measured, and nothing about the next one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student
from scipy.stats import trim_mean

TRIM = 0.2
"""Share of the blocks' log-ratios that is cut off at either end."""
LEVEL = 0.01
"""Probability of a lower bound above the true ratio."""
SLOWER = 1.05
"""Estimates up to here are not worth an alarm, however certain."""
BLIND = 1.25
"""Where the smallest ratio that the data could have shown is larger, they say nothing."""

Verdict = Literal["pass", "improvement", "regression", "inconclusive", "suspect"]


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
    def blind(self) -> bool:
        """Whether the data could not have shown a ratio that matters."""
        return not self.detectable <= BLIND

    @property
    def slower(self) -> bool:
        """Lower bound above 1 and estimate above 1.05."""
        return self.lower > 1 and self.estimate > SLOWER

    @property
    def faster(self) -> bool:
        """The same in the other direction."""
        return self.upper < 1 and self.estimate < 1 / SLOWER

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def pair_log_ratio(old: ArrayLike, new: ArrayLike) -> float:
    """The 20 % trimmed mean of the log-ratios of alternating blocks, in nats.

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
    half = float(student.ppf(1 - LEVEL, n - 1)) * statistics.stdev(log_ratios, xbar=mean) / math.sqrt(n)
    return RatioTest(
        math.exp(mean), math.exp(mean - half), math.exp(mean + half), max(SLOWER, math.exp(half)), n
    )


def verdict(first: RatioTest, second: RatioTest | None = None) -> Verdict:
    """The verdict on one algorithm and workload.

    Pairs that could not have shown a ratio of 1.25 are inconclusive. A slowdown is `suspect` until as many
    fresh pairs have been measured, and a regression when these, taken alone, show it too. An improvement is
    told from the first pairs.

    Args:
        second: the fresh pairs, where the first were suspect.
    """
    if first.blind:
        return "inconclusive"
    if not first.slower:
        return "improvement" if first.faster else "pass"
    if second is None:
        return "suspect"
    if second.blind:
        return "inconclusive"
    return "regression" if second.slower else "pass"


def false_alarm_bound(comparisons: int) -> float:
    """Largest probability of any false regression among so many comparisons: each needs two independent
    errors at 1 %.
    """
    return min(1.0, comparisons * LEVEL**2)
