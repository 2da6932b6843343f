"""The verdict on one metric of two runs of the same cells: its difference over seeds against a margin."""

from __future__ import annotations

from typing import Literal

from xpo_bench.statistics import ALPHA, Difference

Verdict = Literal["same", "equivalent", "improved", "regression", "undecided"]
SEEDS, TASKS = 5, 4
"""Seeds and tasks that the test over tasks needs, each."""
QUARTER = 0.25
"""Of a margin: what all tasks together have to move by; a change of rounding has a sign too."""


def judge(found: Difference, margin: float, better: str | None, adjusted: float | None) -> Verdict:
    """The verdict on one metric.

    Args:
        adjusted: p, corrected for how many comparisons are made.

    Returns:
        `regression`: worse beyond the margin, and told apart from nothing at 5 % after the correction.
        `equivalent`: the whole 95 % interval is within the margin on the side that is worse. `improved`: it
        is beyond it on the other. Else `undecided`.
    """
    worse = abs(found.mean) if better is None else found.mean if better == "lower" else -found.mean
    if adjusted is not None and adjusted < ALPHA and worse > margin:
        return "regression"
    if found.low is None or found.high is None:
        return "undecided"
    ends = (found.low, found.high) if better != "higher" else (-found.high, -found.low)
    if better is not None and ends[1] < -margin:
        return "improved"
    if ends[1] < margin and (better is not None or ends[0] > -margin):
        return "equivalent"
    return "undecided"
