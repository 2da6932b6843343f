"""The rule "prefer the longer completion": a row to compare accuracies with, no algorithm."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.verdicts.paired import heldout_pairs
from xpo_bench.statistics import ROUNDING, Estimate, estimate

LONGER = "always longer"
"""The name of its row: with a blank, so that no algorithm can have it."""
OF_LONGER: Mapping[str, str] = {
    "reward_accuracy": "longer_accuracy",
    "heldout_reward_accuracy": "heldout_longer_accuracy",
}
"""Accuracy -> the metric that holds the rule's accuracy on the same evaluation pairs."""


def longer_by_seed(groups: Sequence[SeedGroup], accuracy: str) -> dict[int, float]:
    """seed -> the rule's accuracy, averaged over the cells of one task; empty where it is not told."""
    gathered: dict[int, list[float]] = {}
    for g in groups:
        for seed, value in g.values(OF_LONGER[accuracy]).items():
            if value is not None:
                gathered.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in sorted(gathered.items())}


def longer(groups: Sequence[SeedGroup], accuracy: str) -> Estimate | None:
    """The rule's accuracy over seeds: without an interval where every seed evaluates the same pairs."""
    return estimate(longer_by_seed(groups, accuracy).values()) if accuracy in OF_LONGER else None


def pairs_variance(groups: Sequence[SeedGroup], rule: Estimate) -> dict[SeedGroup, float]:
    """group -> variance of (held-out accuracy − the rule's) that lies in which pairs are held out.

    Only where every seed evaluates the same pairs, so that the spread over seeds does not show it.
    """
    if rule.half is not None and rule.half > ROUNDING:
        return {}
    out = {}
    for g in groups:
        accuracy = g.estimate("heldout_reward_accuracy")
        pairs = [n for r in g.counted if (n := heldout_pairs(r))]
        if accuracy and pairs:
            # x(1 − x)/n of a binomial, both accuracies as if independent: they mostly agree on a pair, so
            # that this is rather too much than too little
            out[g] = sum(x * (1 - x) for x in (accuracy.mean, rule.mean)) / min(pairs)
    return out
