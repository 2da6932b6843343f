"""Four words, and how many runs or items would decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from xpo_bench.verdicts.differences import PairedDifference, over_runs
from xpo_bench.verdicts.words import POWER, equivalent, judge, power, runs_needed


def made(mean: float, se: float, runs: int = 5) -> PairedDifference:
    return PairedDifference(mean, se**2, 0.0, runs - 1.0, runs)


@pytest.mark.parametrize(
    ("mean", "se", "corrected", "word"),
    [
        (0.3, 0.01, 0.001, "better"),
        (-0.3, 0.01, 0.001, "worse"),
        (0.001, 0.002, 0.9, "equivalent"),
        (0.001, 0.1, 0.9, "cannot tell"),
        (0.3, 0.2, 0.2, "cannot tell"),
        (0.005, 0.0005, 0.001, "equivalent"),
    ],
)
def test_words(mean: float, se: float, corrected: float, word: str) -> None:
    assert judge(made(mean, se), corrected, margin=0.02, higher=True).word == word


def test_fewer_is_better_where_the_metric_says_so() -> None:
    assert judge(made(0.3, 0.01), 0.001, margin=0.02, higher=False).word == "worse"


def test_a_single_run_is_told_nothing_of() -> None:
    assert judge(PairedDifference(0.3, None, 0.0, math.inf, 1), None, 0.02, True).word == "cannot tell"


def test_equivalence_is_two_one_sided_tests() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.01, 0.02, 0.05):
        values = scale * rng.normal(size=8)
        theirs, *_ = DescrStatsW(values).ttost_mean(-0.02, 0.02)
        assert equivalent(over_runs(values.tolist(), range(8)), 0.02) == (theirs < 0.05)


@pytest.mark.parametrize("runs", [3, 5, 12])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_is_that_of_statsmodels(runs: int, alpha: float) -> None:
    theirs = TTestPower().power(1.3, runs, alpha)
    assert power(1.3 * 0.07, 0.07, runs, alpha) == pytest.approx(theirs, abs=1e-6)


def test_as_many_runs_as_statsmodels_asks_for() -> None:
    theirs = TTestPower().solve_power(0.8, alpha=0.05, power=POWER)
    assert runs_needed(0.8, 1.0) == math.ceil(theirs)


@pytest.mark.parametrize("effect", [0.6, 1.2])
def test_the_power_that_was_promised_is_found(effect: float) -> None:
    """2,000 studies with as many runs as were asked for find the difference with about the power."""
    runs, rng = runs_needed(effect, 1.0), np.random.default_rng(1)
    assert runs is not None
    found = [
        (over_runs((effect + rng.normal(size=runs)).tolist(), range(runs)).p or 1.0) < 0.05
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(power(effect, 1.0, runs), abs=0.03)
    assert power(effect, 1.0, runs - 1) < POWER <= power(effect, 1.0, runs)


def test_what_would_decide_is_told_of_the_level_that_is_short() -> None:
    seeds = judge(made(0.1, 0.08), 0.3, 0.02, True)
    assert seeds.items is None
    assert seeds.runs is not None
    assert seeds.runs > 5
    persons = judge(PairedDifference(0.1, 0.0, 0.08**2, 51.0, 1, 52), 0.3, 0.02, True)
    assert persons.runs is None
    # (z.975 + z.8)² · σ²/effect² of persons
    assert persons.items == pytest.approx(52 * 0.64 * 2.802**2, rel=0.02)


def test_more_comparisons_need_more_runs() -> None:
    alone, among = (judge(made(0.1, 0.08), 0.3, 0.02, True, family) for family in (1, 50))
    assert (among.runs or 0) > (alone.runs or 0)
