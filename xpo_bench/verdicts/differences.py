"""Paired differences of two algorithms, with the uncertainty of runs and of the items that judge them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from xpo_bench.statistics import CONFIDENCE, ROUNDING, mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """An algorithm minus another one, over the runs and items that both have.

    Args:
        mean: of the differences, in the metric's unit.
        of_runs, of_items: parts of the variance of that mean that come from training runs and from the items
            on which they are judged. None: not known, from one run that nobody repeated.
        free: degrees of freedom of the two together; infinite where nothing is random.
        runs: how many runs differ in something random. items: clusters of items; 0 where the metric is exact.
    """

    mean: float
    of_runs: float | None
    of_items: float
    free: float
    runs: int
    items: int = 0

    @property
    def se(self) -> float | None:
        """Standard error of the mean; None where it is not known."""
        return None if self.of_runs is None else math.sqrt(self.of_runs + self.of_items)

    @property
    def fixed(self) -> bool:
        """Whether nothing random is in it: repeated runs were equal to the bit, and no item was sampled."""
        return self.se == 0 and math.isinf(self.free)

    @property
    def zero(self) -> bool:
        """Whether the two did not differ in any run or item: no comparison that could come out otherwise."""
        return abs(self.mean) <= ROUNDING and not self.se

    def reversed(self) -> PairedDifference:
        """The other algorithm minus this one."""
        return replace(self, mean=-self.mean)

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval; None where it is not known."""
        if self.se is None:
            return None
        return self.se * quantile(0.5 + CONFIDENCE / 2, self.free) if self.se else 0.0

    @property
    def p(self) -> float | None:
        """Two-sided, of no difference; None where the uncertainty is not known."""
        return None if self.se is None else two_sided(self.mean, self.se, self.free)


def quantile(level: float, free: float) -> float:
    """Of Student's t; normal with infinitely many degrees of freedom."""
    return float(scipy.special.stdtrit(min(free, 1e9), level))


def two_sided(mean: float, se: float, free: float) -> float:
    """p of a mean of 0 by Student's t; without any spread 0 or 1."""
    if se <= ROUNDING * abs(mean) or se == 0:
        return 1.0 if abs(mean) <= ROUNDING else 0.0
    return 2 * float(scipy.special.stdtr(min(free, 1e9), -abs(mean) / se))


def over_runs(differences: Sequence[float], runs: Sequence[Hashable]) -> PairedDifference:
    """From one difference per seed.

    Args:
        differences: shape (seeds,). runs: what each seed came to, all of it: seeds whose runs are equal are
            one run. With several seeds that are all one run nothing was random, and the difference is what
            it is; with one seed the uncertainty is not known.
    """
    kept = [d for _, d in sorted(_distinct(runs, differences))]
    n, middle = len(kept), mean(kept)
    if n == 1:
        return PairedDifference(middle, 0.0 if len(differences) > 1 else None, 0.0, math.inf, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # near the largest double
        variance = float(np.var(kept, ddof=1))
    return PairedDifference(middle, variance / n, 0.0, n - 1.0, n)


def _distinct(runs: Sequence[Hashable], values: Sequence[float]) -> list[tuple[int, float]]:
    """The first value of every run that is not equal to an earlier one, with its place."""
    return [
        (place, values[place]) for place in {run: i for i, run in reversed(list(enumerate(runs)))}.values()
    ]


@dataclass(frozen=True)
class ItemDifferences:
    """What two algorithms made of the items of one seed.

    Args:
        cluster: of every item, equal in all seeds for the same person or prompt. value: the difference.
        stratum: small integers; the statistic is the mean over strata of the mean within each.
    """

    cluster: Sequence[str]
    value: Floats
    stratum: NDArray[np.int64]

    def statistic(self) -> float:
        """The mean over strata of the mean difference within each."""
        return float(np.mean([self.value[self.stratum == g].mean() for g in np.unique(self.stratum)]))

    def influence(self) -> Floats:
        """How far each item moves the statistic, shape (items,), summing to 0."""
        strata = np.unique(self.stratum)
        out = np.zeros(len(self.value))
        for g in strata:
            here = self.stratum == g
            out[here] = (self.value[here] - self.value[here].mean()) / (len(strata) * here.sum())
        return out


def over_items(seeds: Sequence[ItemDifferences], runs: Sequence[Hashable]) -> PairedDifference:
    """From the items of every seed: runs are replicates of training, clusters of items those of evaluation.

    With θ_s the statistic of seed s, and ψ_sc its influence by cluster c, the variance of mean θ_s is
    V_runs + V_items − V_both: V_runs = var(θ_s)/S, V_items = C/(C−1)·Σ_c(Σ_s ψ_sc)², and V_both what stands
    in both, the spread of ψ_sc over the seeds that share a cluster. Degrees of freedom after Satterthwaite. A
    bootstrap of few seeds is too narrow (docs/statistics.md has both by simulation).

    Args:
        seeds: one entry per seed. runs: as in `over_runs`.

    Source: two-way clustering after Cameron, Gelbach & Miller 2011; Satterthwaite 1946.
    """
    kept = [seeds[place] for place, _ in sorted(_distinct(runs, range(len(seeds))))]
    count = len(kept)
    own = [seed.statistic() for seed in kept]
    middle = mean(own)
    if count == 1 and len(seeds) == 1:
        return PairedDifference(middle, None, 0.0, math.inf, 1, len(set(kept[0].cluster)))
    place = {c: i for i, c in enumerate(dict.fromkeys(c for seed in kept for c in seed.cluster))}
    psi, there = np.zeros((count, len(place))), np.zeros((count, len(place)))
    for s, seed in enumerate(kept):
        at = [place[c] for c in seed.cluster]
        np.add.at(psi[s], at, seed.influence() / count)
        there[s, at] = 1
    clusters = len(place)
    of_items = clusters / max(clusters - 1, 1) * float((psi.sum(0) ** 2).sum())
    of_runs = float(np.var(own, ddof=1)) / count if count > 1 else 0.0
    shared = there.sum(0)
    centred = np.where(there > 0, psi - np.where(shared > 1, psi.sum(0) / shared, 0.0), 0.0)
    both = float(((centred**2).sum(0) * np.where(shared > 1, shared / np.maximum(shared - 1, 1), 1.0)).sum())
    if count == 1:
        return PairedDifference(middle, 0.0, of_items, max(clusters - 1.0, 1.0), 1, clusters)
    # never less than either alone; what is left beside the items counts as that of the runs
    total = max(of_runs + of_items - both, of_runs, of_items)
    if total == 0:
        return PairedDifference(middle, 0.0, 0.0, float(count - 1), count, clusters)
    # of_runs is known to S − 1 degrees of freedom as a whole, what it shares with the items included
    free = total**2 / (of_runs**2 / (count - 1) + of_items**2 / max(clusters - 1, 1))
    return PairedDifference(middle, total - of_items, of_items, max(free, 1.0), count, clusters)
