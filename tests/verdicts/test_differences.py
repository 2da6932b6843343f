"""Paired differences: what counts as one run, and whether intervals hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from xpo_bench.verdicts.differences import (
    ItemDifferences,
    PairedDifference,
    over_items,
    over_runs,
    two_sided,
)


def test_the_paired_t_test_of_scipy() -> None:
    values = [0.3, -0.1, 0.5, 0.2, 0.4]
    found = over_runs(values, range(5))
    theirs = stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    low, high = theirs.confidence_interval(0.95)
    assert found.mean - (found.half or 0) == pytest.approx(low)
    assert found.mean + (found.half or 0) == pytest.approx(high)


def test_runs_that_are_equal_are_one_run() -> None:
    repeated = over_runs([0.2, 0.2, 0.2], ["a", "a", "a"])
    assert (repeated.runs, repeated.se, repeated.fixed) == (1, 0.0, True)
    partly = over_runs([0.2, 0.2, 0.5], ["a", "a", "b"])
    assert partly.runs == 2
    assert partly.mean == pytest.approx(0.35)


def test_a_single_seed_has_no_interval() -> None:
    single = over_runs([0.2], ["a"])
    assert single.half is None
    assert single.p is None


def items(rng: np.random.Generator, between: float, clusters: int, each: int) -> ItemDifferences:
    """Differences of one seed in {−1, 0, 1}: persons that agree with themselves, and noise."""
    of_cluster = np.repeat(0.6 * rng.normal(size=clusters), each)
    values = np.clip(np.round(between + of_cluster + 0.6 * rng.normal(size=clusters * each)), -1, 1)
    names = [str(c) for c in np.repeat(np.arange(clusters), each)]
    return ItemDifferences(names, values, np.zeros(len(values), dtype=np.int64))


def test_equal_runs_take_their_uncertainty_from_the_items() -> None:
    one = items(np.random.default_rng(0), 0.1, 40, 3)
    found = over_items([one, one, one], ["a", "a", "a"])
    assert (found.runs, found.items, found.of_runs) == (1, 40, 0.0)
    by_cluster = one.value.reshape(40, 3).mean(1)
    assert found.se == pytest.approx(by_cluster.std(ddof=1) / math.sqrt(40))
    assert found.free == 39


def test_two_pairs_of_two_persons_are_no_proof() -> None:
    """All other pairs agree: three seeds of one run are no three proofs, and p is that of the persons."""
    value = np.zeros(156)
    value[[0, 1]] = 1.0
    clusters = [str(i // 3) for i in range(156)]
    one = ItemDifferences(clusters, value, np.zeros(156, dtype=np.int64))
    found = over_items([one] * 3, ["equal"] * 3)
    assert found.items == 52
    assert found.p == pytest.approx(0.32, abs=0.02)


def test_a_stratified_statistic_is_the_mean_of_its_strata() -> None:
    value, stratum = np.array([1.0, 0.0, 0.0, 0.0, -1.0]), np.array([1, 2, 2, 2, 2])
    one = ItemDifferences(list("abcde"), value, stratum)
    assert one.statistic() == pytest.approx(0.5 * (1.0 - 0.25))
    assert one.influence().sum() == pytest.approx(0.0, abs=1e-15)


def test_the_variance_of_crossed_seeds_and_persons() -> None:
    """Over 100 studies the variance that is told is that of the two-way layout that drew them."""
    rng, told = np.random.default_rng(1), []
    seeds, persons, a, b, e = 20, 30, 0.3, 0.5, 0.7
    names, stratum = [str(i) for i in range(persons)], np.zeros(persons, dtype=np.int64)
    for _ in range(100):
        of_person = b * rng.normal(size=persons)
        drawn = [a * rng.normal() + of_person + e * rng.normal(size=persons) for _ in range(seeds)]
        found = over_items([ItemDifferences(names, values, stratum) for values in drawn], range(seeds))
        told.append((found.se or 0.0) ** 2)
    truth = a**2 / seeds + b**2 / persons + e**2 / (seeds * persons)
    assert np.mean(told) == pytest.approx(truth, rel=0.07)  # three standard errors


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("between", [0.0, 0.2], ids=["equal seeds", "seeds that differ"])
def test_coverage_of_the_interval_over_seeds_and_persons(seeds: int, between: float) -> None:
    """1,200 studies of 40 persons with three pairs each: .93 to .97 is what the error of counting allows."""
    rng, held, studies, persons, each = np.random.default_rng(seeds), 0, 1200, 40, 3
    names = [str(c) for c in np.repeat(np.arange(persons), each)]
    stratum = np.zeros(len(names), dtype=np.int64)
    for _ in range(studies):
        of_person = np.repeat(0.5 * rng.normal(size=persons), each)
        runs = [
            np.clip(np.round(between * rng.normal() + of_person + 0.5 * rng.normal(size=len(names))), -1, 1)
            for _ in range(seeds)
        ]
        found = over_items([ItemDifferences(names, run, stratum) for run in runs], range(seeds))
        held += abs(found.mean) <= (found.half or 0.0)
    # two standard errors of the fraction on either side, .013 in all
    assert 0.93 - 0.013 <= held / studies <= 0.97 + 0.013


def test_two_sided_without_spread() -> None:
    assert two_sided(0.0, 0.0, 2.0) == 1.0
    assert two_sided(0.1, 0.0, 2.0) == 0.0


def test_what_could_not_differ_is_told() -> None:
    assert PairedDifference(0.0, 0.0, 0.0, math.inf, 3).zero
    assert not PairedDifference(0.0, 0.1, 0.0, 2.0, 3).zero
