"""How far a metric may move before that is a change: declared margins, one table for all comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xpo_bench.errors import UsageError, unknown


@dataclass(frozen=True)
class Margin:
    """Half the width of equality: `absolute`, in the metric's unit, plus `relative` times the base."""

    absolute: float
    relative: float = 0.0

    def at(self, base: float) -> float:
        return self.absolute + self.relative * abs(base)


SHARE = Margin(0.02)
"""Two pairs in a hundred: what one of the usual 64 held-out pairs makes, and a little."""
REWARD = Margin(0.02, 0.05)
NATS = Margin(0.05, 0.05)

MARGINS: Mapping[str, Margin] = {
    "reward_accuracy": SHARE,
    "ranking_accuracy": SHARE,
    "ranking_accuracy_avg": SHARE,
    "accuracy_lc": SHARE,
    "heldout_reward_accuracy": SHARE,
    "heldout_accuracy_lc": SHARE,
    "win_rate": SHARE,
    "calibration_error": SHARE,
    "brier": SHARE,
    "collapsed": SHARE,
    "displaced_fraction": SHARE,
    "unseen_mass": SHARE,
    "gold_reward": REWARD,
    "gold_gain": REWARD,
    "regret": REWARD,
    "frontier_gap": REWARD,
    "kl": NATS,
    "kl_forward": NATS,
    "chosen_logp": NATS,
    "rejected_logp": NATS,
    "forget_logp": NATS,
    "retain_logp": NATS,
}
"""Metrics that are judged. Those that are neither better higher nor lower are judged both ways: a run that
ends elsewhere has changed. What depends on the clock is judged by `compare --ab` alone."""


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
