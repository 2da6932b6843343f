"""What a task is judged by: one metric, or whether its rejected completions stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xpo_bench.errors import UsageError
from xpo_bench.metrics.attained import ACCURACY, ATTAINED, WIN_RATE
from xpo_bench.metrics.margins import margin_of
from xpo_bench.metrics.registry import better
from xpo_bench.report.runs import SeedGroup

BUDGET = 1.0
"""Nats of KL within which algorithms are compared unless a metric is named."""
UNMOVED = 0.01
"""A policy whose KL is below this fraction of the KL that the task is about has not moved."""


@dataclass(frozen=True)
class Headline:
    """What a task is judged by.

    Args:
        metric: None where the task is judged by whether its rejected completions stop.
        about: what its data are. unit: what a number of it is.
    """

    metric: str | None
    about: str
    unit: str

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.metric is None or better(self.metric) != "lower"

    def margin(self, mean: float) -> float:
        """Differences up to it are no difference to anybody; 0 where none is declared."""
        found = margin_of(self.metric) if self.metric else None
        return found.at(mean) if found else 0.0


KNOWN = (
    Headline(ATTAINED[BUDGET], "known reward", "of the exact frontier"),
    Headline(WIN_RATE[BUDGET], "gold reward", "win rate against the initial policy"),
    Headline(f"heldout_{ACCURACY[BUDGET]}", "held-out pairs", "held-out accuracy"),
    Headline("heldout_reward_accuracy", "held-out pairs", "held-out accuracy at the end"),
    Headline("exploitability", "general preference", "won beyond ½ by the best response"),
)
"""By what a task is judged, the first that all of its algorithms have."""
STOPS = Headline(None, "training pairs", "does it stop?")
UNTOLD = Headline(None, "unknown", "")
"""Of a task of which no run came to anything, or whose records are older than what would judge them."""


def headline(groups: Sequence[SeedGroup], metric: str | None = None) -> Headline:
    """The headline of one task, or the metric that was asked for.

    Args:
        groups: the algorithms of the task.

    Raises:
        UsageError: the metric says of nobody that it is better.
    """
    if metric is not None and better(metric) is None:
        raise UsageError(
            f"--metric {metric}: has no preferred direction, or is unknown; `xpo-bench list metrics` says "
            "which have one"
        )
    if metric is not None:
        return Headline(metric, metric, metric)
    counted = [g for g in groups if g.counted]
    for known in KNOWN:
        if known.metric and counted and all(g.known(known.metric) for g in counted):
            return known
    notes = [r.notes for g in counted for r in g.counted]
    return STOPS if any(n.rejected_state or n.rejected_state_reason for n in notes) else UNTOLD


def moved(g: SeedGroup) -> bool:
    """Whether the policy has moved: its KL is above a hundredth of the task's, or of 1 nat without one.

    A policy that stands still leads every metric that only asks for little KL or for the sign of a margin.
    """
    kl = g.estimate("kl")
    if kl is None:
        return True
    budgets = [r.notes.budget_kl for r in g.counted if r.notes.budget_kl is not None]
    largest = max((v for v in g.values("kl").values() if v is not None), default=kl.mean)
    return largest >= UNMOVED * (max(budgets) if budgets else BUDGET)
