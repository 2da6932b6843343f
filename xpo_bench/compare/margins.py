"""The metrics that a comparison of two runs judges, each with its declared margin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.margins import Margin, margin_of

JUDGED = (
    "attained",
    "attained_0.3",
    "attained_1",
    "attained_3",
    "reward_accuracy",
    "ranking_accuracy",
    "ranking_accuracy_avg",
    "accuracy_lc",
    "heldout_reward_accuracy",
    "heldout_accuracy_lc",
    "heldout_accuracy_at_0.3",
    "heldout_accuracy_at_1",
    "heldout_accuracy_at_3",
    "win_rate",
    "win_rate_at_0.3",
    "win_rate_at_1",
    "win_rate_at_3",
    "calibration_error",
    "brier",
    "collapsed",
    "displaced_fraction",
    "unseen_mass",
    "exploitability",
    "borda",
    "gold_reward",
    "gold_gain",
    "regret",
    "frontier_gap",
    "kl",
    "kl_forward",
    "chosen_logp",
    "rejected_logp",
    "forget_logp",
    "retain_logp",
)
"""Metrics that a comparison of two runs judges. Those that are neither better higher nor lower are judged
both ways: a run that ends elsewhere has changed. What the clock decides is judged by `compare --ab` alone."""

MARGINS: Mapping[str, Margin] = {name: margin for name in JUDGED if (margin := margin_of(name))}


def with_changes(words: Iterable[str]) -> dict[str, Margin]:
    """The table with `METRIC=VALUE` words, absolute margins, in it.

    Raises:
        UsageError: a metric that is not judged, or no margin.
    """
    out = dict(MARGINS)
    for word in words:
        name, _, text = word.partition("=")
        if name not in out:
            raise UsageError(f"--margin {word}: {unknown('metric', name, out)}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UsageError(
                f"--margin {word}: expected METRIC=VALUE, a number of 0 or more in the unit of the metric"
            )
        out[name] = Margin(value)
    return out
