"""The rule "prefer the longer completion": a row to compare accuracies with, no algorithm."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from xpo_bench.report.stats import Estimate, Group, estimate

LONGER = "always longer"
"""The name of its row: with a blank, so that no algorithm can have it."""
OF_LONGER: Mapping[str, str] = {
    "reward_accuracy": "longer_accuracy",
    "heldout_reward_accuracy": "heldout_longer_accuracy",
}
"""Accuracy -> the metric that holds the rule's accuracy on the same evaluation pairs."""


def longer_by_seed(groups: Sequence[Group], accuracy: str) -> dict[int, float]:
    """seed -> the rule's accuracy, averaged over the cells of one task; empty where it is not told."""
    found: dict[int, list[float]] = {}
    for g in groups:
        for seed, value in g.values(OF_LONGER[accuracy]).items():
            if value is not None:
                found.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in sorted(found.items())}


def longer(groups: Sequence[Group], accuracy: str) -> Estimate | None:
    """The rule's accuracy over seeds: without an interval where every seed evaluates the same pairs."""
    return estimate(longer_by_seed(groups, accuracy).values()) if accuracy in OF_LONGER else None
