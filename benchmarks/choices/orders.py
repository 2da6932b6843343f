"""Kendall's τ between the orders of algorithms on two tasks, with an interval over what was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from benchmarks.choices.predictions import Array, Predictions, Value, cross_fitted
from xpo_bench.report.records import records_of
from xpo_bench.runner.store import Store
from xpo_bench.statistics import CONFIDENCE

RESAMPLES = 1000


@dataclass(frozen=True)
class Order:
    """How well every algorithm did on one task, by units that could have been others.

    Args:
        task: and its policy, as it is printed. measure: by what. unit: what is drawn, people or seeds.
        sums: shape (units, algorithms), larger is better. counts: what a unit's sum is over, shape (units,).
    """

    task: str
    measure: str
    unit: str
    algorithms: tuple[str, ...]
    sums: Array
    counts: Array

    def scores(self, weights: Array) -> Array:
        """Means over weighted units, shape (..., algorithms)."""
        found: Array = (weights @ self.sums) / (weights @ self.counts)[..., None]
        return found

    def resampled(self, rng: np.random.Generator, times: int) -> Array:
        """Scores of so many draws of units with replacement, shape (times, algorithms)."""
        units = len(self.counts)
        return self.scores(rng.multinomial(units, np.full(units, 1 / units), size=times).astype(float))


def of_people(
    found: Predictions, measure: str, task: str, defaults: Mapping[str, Value] | None = None
) -> Order:
    """By held-out people: at the default values, else at those that predict the other half of them best.

    Args:
        measure: one of which more is better. defaults: algorithm -> its value; one without it is left out.
    """
    index = found.index()
    if defaults is None:
        rows = {name: cross_fitted(found, name, measure)[0] for name in found.algorithms}
    else:
        at = {name: (name, defaults.get(name)) for name in found.algorithms}
        rows = {name: found.values[key][measure] for name, key in at.items() if key in found.values}
    sums = np.array([np.bincount(index, weights=row) for row in rows.values()]).T
    counts = np.bincount(index).astype(float)
    named = f"{measure} at {'the best' if defaults is None else 'the default'}"
    return Order(task, named, "people", tuple(rows), sums, counts)


def of_seeds(runs: Sequence[Path], task: str, metric: str) -> Order | None:
    """By the seeds of a world, algorithms at their defaults; None without two seeds of two algorithms.

    Seeds that some algorithm lacks are left out.
    """
    known: dict[str, dict[int, float]] = {}
    for root in runs:
        for record in records_of(Store.existing(root).records()):
            value = record.metrics.get(metric)
            if record.task.name == task and record.status == "ok" and value is not None:
                known.setdefault(record.algorithm.name, {})[record.seed] = float(value)
    most = max(map(len, known.values()), default=0)
    kept = {name: values for name, values in known.items() if len(values) == most}
    seeds = sorted(set.intersection(*(set(values) for values in kept.values()))) if kept else []
    if len(seeds) < 2 or len(kept) < 2:
        return None
    names = tuple(sorted(kept))
    sums = np.array([[kept[name][seed] for name in names] for seed in seeds])
    return Order(task, metric, "seeds", names, sums, np.ones(len(seeds)))


@dataclass(frozen=True)
class Agreement:
    """τ-b of two orders on the algorithms of both, and the percentile interval over draws of both."""

    one: Order
    other: Order
    algorithms: int
    tau: float
    low: float
    high: float


def agreement(one: Order, other: Order, rng: np.random.Generator, times: int = RESAMPLES) -> Agreement | None:
    """Of two orders; None where fewer than five algorithms are in both.

    Draws add noise to scores that are noisy already, so that the interval leans towards 0.
    """
    both = sorted(set(one.algorithms) & set(other.algorithms))
    if len(both) < 5:
        return None
    columns = [[order.algorithms.index(name) for name in both] for order in (one, other)]
    full = [
        order.scores(np.ones(len(order.counts)))[at] for order, at in zip((one, other), columns, strict=True)
    ]
    drawn = [order.resampled(rng, times)[:, at] for order, at in zip((one, other), columns, strict=True)]
    taus = [tau(a, b) for a, b in zip(*drawn, strict=True)]
    low, high = np.nanquantile(taus, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(one, other, len(both), tau(*full), float(low), float(high))


def halves(order: Order, rng: np.random.Generator, times: int = RESAMPLES) -> tuple[float, float, float]:
    """τ between the orders of two halves of a task's own units, the median and 95 % of the divisions.

    What another task can agree at most, about: half the people are a noisier judge than all of them.
    """
    units = len(order.counts)
    taus = []
    for _ in range(times):
        side = (rng.permutation(units) < units / 2).astype(float)
        taus.append(tau(order.scores(side), order.scores(1 - side)))
    low, middle, high = np.nanquantile(taus, [(1 - CONFIDENCE) / 2, 0.5, (1 + CONFIDENCE) / 2])
    return float(low), float(middle), float(high)


def tau(a: Array, b: Array) -> float:
    """Kendall's τ-b of two rows of scores; scores that differ by less than 1e-9 are equal."""
    return float(kendalltau(np.round(a, 9), np.round(b, 9)).statistic)
