"""The verdict on one metric of two runs of the same cells: its difference over seeds against a margin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from xpo_bench.statistics import ALPHA, Difference

Verdict = Literal["regression", "undecided", "improved", "moved", "equivalent", "same"]
"""In the order in which one of them is the verdict of several."""
ORDER: tuple[Verdict, ...] = get_args(Verdict)
SEEDS, TASKS = 5, 4
"""Seeds and tasks that the test over tasks needs, each."""
QUARTER = 0.25
"""Of a margin: how far all tasks together have to move; rounding, too, may have a consistent sign."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that all of them together come to."""
    return min(verdicts, key=ORDER.index)


def on_sampled_items(metric: str) -> bool:
    """Whether other held-out items or other samples could have given the metric another value."""
    return metric.startswith(("heldout_", "win_rate")) or metric == "gold_gain"


def judge_exact(metric: str, moved: float, margin: float, better: str | None) -> Verdict:
    """The verdict where every seed gives the same run, so that no spread over seeds exists.

    The change itself is then exact, and the margin alone decides. A metric on held-out items may be as far
    off by the choice of the items, which one run cannot tell.
    """
    worse = abs(moved) if better is None else moved if better == "lower" else -moved
    if abs(moved) <= margin:
        return "equivalent"
    if on_sampled_items(metric):
        return "undecided"
    return "regression" if worse > 0 else "improved"


def judge(found: Difference, margin: float, better: str | None, adjusted: float | None) -> Verdict:
    """The verdict on one metric.

    Args:
        adjusted: p, corrected for how many comparisons are made.

    Returns:
        `regression`: worse by more than the margin, and significantly at 5 % after the correction.
        `equivalent`: the whole 95 % interval is within the margin on the worse side. `improved`: the whole
        interval is beyond the margin on the better side. Else `undecided`.
    """
    worse = abs(found.mean) if better is None else found.mean if better == "lower" else -found.mean
    if adjusted is not None and adjusted < ALPHA and worse > margin:
        return "regression"
    if found.low is None or found.high is None:
        return "undecided"
    # The interval as seen from the worse side: values above 0 are worse, whichever direction is better.
    low, high = (found.low, found.high) if better != "higher" else (-found.high, -found.low)
    if better is not None and high < -margin:
        return "improved"
    # A metric with a better side is equivalent when it is no worse; one without must not move either way.
    if high < margin and (better is not None or low > -margin):
        return "equivalent"
    return "undecided"
