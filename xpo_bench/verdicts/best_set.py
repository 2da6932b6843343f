"""All pairs of algorithms at once: which cannot be separated from the best, and the interval of each rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import scipy

from xpo_bench.statistics import ALPHA, holm
from xpo_bench.verdicts.differences import PairedDifference, two_sided

MODERATED = 6
"""Algorithms from which on their pairs share what they know of the spread."""
PRIOR = 3.0
"""Degrees of freedom that a pair takes from the others at most; with more, one noisy algorithm among quiet
ones passes for different too often (docs/statistics.md)."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Standing:
    """Where an algorithm stands among the others of one table.

    Args:
        best: whether it cannot be separated from the best. ranks: the interval of its rank, 1 is best; all
            intervals of the table hold at once with 95 %.
    """

    best: bool
    ranks: tuple[int, int]


@dataclass(frozen=True)
class Field:
    """The algorithms of one table, by their place in it.

    Args:
        leader: the place of the best mean. standings: in their order. tests: corrected p of every pair that
            was tested; the first minus the second, so that its sign tells who is ahead.
    """

    leader: int
    standings: Sequence[Standing]
    tests: Mapping[Pair, float]

    def corrected(self, i: int, j: int) -> float | None:
        """p of a pair after the correction, in either order; None where it was not tested."""
        return self.tests.get((i, j) if i < j else (j, i))


def stand(means: Sequence[float], pairs: Mapping[Pair, PairedDifference], higher: bool) -> Field:
    """Compare every algorithm with every other.

    An algorithm is behind another where their paired difference is significant after Holm's correction for
    all pairs that can differ. Its rank lies between one more than those ahead of it and the number of
    algorithms less those behind it, and it is in the best set where nobody is ahead of it.

    Args:
        means: shape (algorithms,). pairs: (i, j), i < j -> algorithm i minus algorithm j; pairs that have
            nothing in common are absent.
        higher: whether more is better.

    Source: Mogstad, Romano, Shaikh & Wilhelm 2024 (ranks from all pairwise tests).
    """
    tested = [pair for pair, d in pairs.items() if d.p is not None and not d.zero]
    moderated = moderate({pair: pairs[pair] for pair in tested}, len(means))
    corrected = holm([two_sided(d.mean, d.se or 0.0, d.free) for d in moderated.values()])
    tests = dict(zip(tested, corrected, strict=True))
    ahead, behind = [0] * len(means), [0] * len(means)
    for (i, j), p in tests.items():
        if p < ALPHA:
            first_wins = (pairs[i, j].mean > 0) == higher
            ahead[j if first_wins else i] += 1
            behind[i if first_wins else j] += 1
    count = len(means)
    standings = [Standing(a == 0, (1 + a, count - b)) for a, b in zip(ahead, behind, strict=True)]
    leader = int(np.argmax(means) if higher else np.argmin(means))
    return Field(leader, standings, tests)


def moderate(pairs: Mapping[Pair, PairedDifference], algorithms: int) -> dict[Pair, PairedDifference]:
    """The pairs with variances drawn towards what all of them say, from `MODERATED` algorithms on.

    s² of one pair over three runs has two degrees of freedom, and a correction for 153 pairs asks more of
    them than any difference can give. Variances of all pairs scatter around s₀² with as many degrees of
    freedom d₀ as their logarithms tell, at most `PRIOR`: s̃² = (d₀·s₀² + d·s²)/(d₀ + d), with d₀ + d degrees
    of freedom. Pairs with items, or of different numbers of runs, stay as they are.

    Source: Smyth 2004 (empirical Bayes of variances).
    """
    used = {k: d for k, d in pairs.items() if not d.items and d.of_runs and not math.isinf(d.free)}
    if algorithms < MODERATED or len({d.runs for d in used.values()}) != 1 or len(used) < 3:
        return dict(pairs)
    free = next(iter(used.values())).free
    variances = np.array([d.of_runs for d in used.values()])
    # E ln s² = ln s₀² + ψ(d/2) − ln(d/2) − ψ(d₀/2) + ln(d₀/2), and Var ln s² = ψ′(d/2) + ψ′(d₀/2)
    logs = np.log(variances) - scipy.special.digamma(free / 2) + math.log(free / 2)
    excess = float(np.var(logs, ddof=1)) - float(scipy.special.polygamma(1, free / 2))
    prior = min(_trigamma_inverse(excess) * 2 if excess > 0 else math.inf, PRIOR, algorithms / 3)
    centre = math.exp(float(logs.mean()) + float(scipy.special.digamma(prior / 2)) - math.log(prior / 2))
    out = dict(pairs)
    for pair, d in used.items():
        pooled = (prior * centre + free * (d.of_runs or 0.0)) / (prior + free)
        out[pair] = replace(d, of_runs=pooled, free=free + prior)
    return out


def _trigamma_inverse(value: float) -> float:
    """x with ψ′(x) = value > 0, by Newton's method on 1/ψ′, which is nearly linear."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(scipy.special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


def every_pair(count: int) -> list[Pair]:
    """(i, j), i < j, of so many algorithms."""
    return list(combinations(range(count), 2))
