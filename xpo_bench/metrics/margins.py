"""How large a difference of a metric has to be before it matters: declared margins, one table for all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    """The largest difference that counts as none.

    Attributes:
        absolute: in the metric's unit. relative: a fraction of the value that is compared with.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def at(self, base: float) -> float:
        """The margin around a value, in the metric's unit: the larger of the two."""
        return max(self.absolute, self.relative * abs(base))

    def __str__(self) -> str:
        parts = [f"{self.absolute:g}"] if self.absolute else []
        return " or ".join([*parts, *([f"{100 * self.relative:g} %"] if self.relative else [])]) or "0"


ATTAINED = Margin(0.02)
"""Two hundredths of what the exact frontier offers."""
FRACTION = Margin(0.02)
"""Two pairs in a hundred: one of the usual 64 held-out pairs, and a little."""
REWARD = Margin(0.02, 0.05)
DIVERGENCE = Margin(0.01, 0.05)
"""5 %; the hundredth of a nat is for policies that have hardly moved, whose KL is rounding or noise."""
LOG_PROBABILITY = Margin(0.1, 0.02)
THROUGHPUT = Margin(relative=0.05)
"""Of CPU time, measured interleaved: seconds of two days do not compare."""

MARGINS: Mapping[str, Margin] = {
    "attained": ATTAINED,
    **dict.fromkeys(
        (
            "accuracy",
            "reward_accuracy",
            "ranking_accuracy",
            "ranking_accuracy_avg",
            "accuracy_lc",
            "validation_accuracy",
            "test_accuracy",
            "win_rate",
            "calibration_error",
            "brier",
            "collapsed",
            "displaced_fraction",
            "unseen_mass",
            "exploitability",
            "borda",
        ),
        FRACTION,
    ),
    **dict.fromkeys(("gold_reward", "gold_gain", "regret", "frontier_gap"), REWARD),
    **dict.fromkeys(("kl", "kl_forward"), DIVERGENCE),
    **dict.fromkeys(
        ("chosen_logp", "rejected_logp", "forget_logp", "retain_logp", "base_logp_change"), LOG_PROBABILITY
    ),
    **dict.fromkeys(("pairs_per_s", "tokens_per_s"), THROUGHPUT),
}
"""By metric, apart from `heldout_` and from the budget of KL at which it is read."""

_BUDGET = re.compile(r"(_at)?_[0-9.]+$")


def margin_of(name: str) -> Margin | None:
    """The margin of a metric; None where none is declared.

    `heldout_x` has the margin of `x`, and `x_at_1`, the metric within a nat of KL, that of `x`.
    """
    plain = name.removeprefix("heldout_")
    return MARGINS.get(plain) or MARGINS.get(_BUDGET.sub("", plain))
