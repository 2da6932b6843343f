"""Four words for a difference: better, worse, equivalent, cannot tell; and how much more would decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import scipy

from xpo_bench.statistics import ALPHA
from xpo_bench.verdicts.differences import PairedDifference, quantile

Word = Literal["better", "worse", "equivalent", "cannot tell"]
POWER = 0.8
"""Probability with which the runs that are asked for would separate two algorithms that differ as seen."""
MOST_RUNS = 1000
"""Runs beyond which nobody is told a number."""


@dataclass(frozen=True)
class Verdict:
    """What is concluded from one difference.

    Args:
        word: from the side of the algorithm that the other was subtracted from. corrected: p after the
            correction for the family; None where it is not known. runs, items: how many would decide in all,
            where the word is "cannot tell" and a number can be told; at most one of them is given.
    """

    word: Word
    corrected: float | None
    runs: int | None = None
    items: int | None = None


def judge(
    difference: PairedDifference, corrected: float | None, margin: float, higher: bool, family: int = 1
) -> Verdict:
    """The word for a difference.

    Equivalent comes first: a difference that is known to be smaller than the margin is one that nobody needs
    to choose by, whether or not it is 0.

    Args:
        corrected: p after Holm's correction. margin: differences up to it are no difference to anybody.
        higher: whether more is better. family: comparisons that are corrected for: how many more runs would
            decide depends on it.
    """
    if difference.se is None:
        return Verdict("cannot tell", None)
    if equivalent(difference, margin):
        return Verdict("equivalent", corrected)
    if corrected is not None and corrected < ALPHA:
        return Verdict("better" if (difference.mean > 0) == higher else "worse", corrected)
    return Verdict("cannot tell", corrected, *more(difference, margin, ALPHA / max(family, 1)))


def equivalent(difference: PairedDifference, margin: float) -> bool:
    """Whether two one-sided tests at 5 % place the difference inside of the margin.

    Source: Schuirmann 1987.
    """
    if difference.se is None:
        return False
    # both tests at once: the 90 % interval lies within (−margin, margin)
    return abs(difference.mean) + quantile(1 - ALPHA, difference.free) * difference.se < margin


def power(effect: float, deviation: float, runs: int, alpha: float = ALPHA) -> float:
    """Probability that the paired t-test of `runs` differences finds a mean of `effect`, two-sided.

    Args:
        deviation: standard deviation of the differences over runs.

    Source: the non-central t distribution (Cohen 1988).
    """
    if runs < 2:
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    free, shift = runs - 1, abs(effect) / deviation * math.sqrt(runs)
    limit = quantile(1 - alpha / 2, free)
    found = (
        1 - float(scipy.special.nctdtr(free, shift, limit)) + float(scipy.special.nctdtr(free, shift, -limit))
    )
    return found if math.isfinite(found) else 1.0


def runs_needed(effect: float, deviation: float, alpha: float = ALPHA) -> int | None:
    """The fewest runs whose paired t-test has `POWER`; None beyond `MOST_RUNS`."""
    if effect == 0 or power(effect, deviation, MOST_RUNS, alpha) < POWER:
        return None
    low, high = 1, MOST_RUNS  # power rises with the runs
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, deviation, middle, alpha) >= POWER else (middle, high)
    return high


def more(difference: PairedDifference, margin: float, alpha: float = ALPHA) -> tuple[int | None, int | None]:
    """(runs, items): how many in all would decide, of whichever leaves the larger part of the variance.

    Decided is a difference of the size seen, or, where that is below the margin, equivalence.
    """
    if difference.of_runs is None:
        return None, None
    if difference.of_items > difference.of_runs:
        # normal approximation: the two levels have many clusters between them
        wanted = _wanted(difference.mean, margin, alpha)
        left = wanted - difference.of_runs if wanted else 0.0
        if left <= 0:
            return None, None
        needed = math.ceil(difference.items * difference.of_items / left)
        return None, needed if needed > difference.items else None
    deviation = math.sqrt(difference.of_runs * difference.runs)
    if abs(difference.mean) >= margin:
        needed_runs = runs_needed(difference.mean, deviation, alpha)
    else:
        needed_runs = _equivalence_runs(difference.mean, deviation, margin)
    return needed_runs if needed_runs and needed_runs > difference.runs else None, None


def _wanted(mean: float, margin: float, alpha: float) -> float:
    """The variance of the mean at which the test has its power."""
    distance = abs(mean) if abs(mean) >= margin else margin - abs(mean)
    level = 1 - alpha / 2 if abs(mean) >= margin else 1 - ALPHA
    return (distance / (quantile(level, math.inf) + quantile(POWER, math.inf))) ** 2


def _equivalence_runs(mean: float, deviation: float, margin: float) -> int | None:
    """The fewest runs whose 90 % interval would lie within the margin with about `POWER`."""
    for runs in range(2, MOST_RUNS + 1):
        reach = (quantile(1 - ALPHA, runs - 1) + quantile(POWER, runs - 1)) * deviation / math.sqrt(runs)
        if abs(mean) + reach < margin:
            return runs
    return None
