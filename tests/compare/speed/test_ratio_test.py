"""Trimmed means, bounds and verdicts, against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from xpo_bench.compare.speed.ratio_test import (
    RatioTest,
    false_alarm_bound,
    pair_log_ratio,
    ratio_test,
    verdict,
)


def test_pair_is_the_trimmed_mean_of_log_ratios() -> None:
    rng = np.random.default_rng(0)
    old, new = np.exp(rng.normal(0, 0.3, (2, 12)))
    logs = np.log(new) - np.log(old)
    assert pair_log_ratio(old, new) == pytest.approx(stats.trim_mean(logs, 0.2), abs=1e-15)
    assert pair_log_ratio(old, new) == pytest.approx(np.sort(logs)[2:-2].mean(), abs=1e-15)


def test_two_struck_blocks_on_either_side_do_not_move_a_pair() -> None:
    old, new = [1.0] * 12, [1.1] * 12
    old[3] = old[9] = 7.0
    new[0] = new[5] = 9.0
    assert math.exp(pair_log_ratio(old, new)) == pytest.approx(1.1)


def test_sides_exchanged_give_the_inverse() -> None:
    rng = np.random.default_rng(1)
    old, new = np.exp(rng.normal(0, 0.3, (2, 12)))
    assert pair_log_ratio(old, new) == pytest.approx(-pair_log_ratio(new, old), abs=1e-15)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, 2], [1]),
        ([], []),
        ([1, 0], [1, 1]),
        ([1, 1], [1, math.inf]),
        ([1, math.nan], [1, 1]),
        ([[1]], [[1]]),
    ],
)
def test_blocks_that_make_no_ratio_are_refused(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match=r"blocks of shapes|must be positive"):
        pair_log_ratio(old, new)


def test_bound_is_that_of_a_one_sided_t_test() -> None:
    logs = [0.11, 0.02, 0.07, 0.09, -0.01, 0.05, 0.04, 0.06]
    found = ratio_test(logs)
    assert found.estimate == pytest.approx(stats.gmean(np.exp(logs)))
    # a t-test against the bound itself has p = 1 %
    below = stats.ttest_1samp(logs, math.log(found.lower), alternative="greater")
    above = stats.ttest_1samp(logs, math.log(found.upper), alternative="less")
    assert below.pvalue == pytest.approx(0.01)
    assert above.pvalue == pytest.approx(0.01)


def test_detectable_is_the_estimate_at_which_the_bound_reaches_one() -> None:
    rng = np.random.default_rng(2)
    logs = rng.normal(0, 0.08, 8)
    found = ratio_test(list(logs))
    assert found.detectable > 1.05
    moved = ratio_test(list(logs - logs.mean() + math.log(found.detectable)))
    assert moved.lower == pytest.approx(1.0)


def test_detectable_is_never_below_what_counts() -> None:
    assert ratio_test([0.01, 0.0101, 0.0099]).detectable == 1.05


def test_bound_covers_the_truth_in_99_of_100() -> None:
    rng = np.random.default_rng(3)
    missed = sum(ratio_test(list(row)).lower > 1 for row in rng.normal(0, 0.1, (5000, 8)))
    assert 0.006 < missed / 5000 < 0.014


def test_one_pair_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two at least"):
        ratio_test([0.1])


def known(estimate: float, factor: float) -> RatioTest:
    """A test whose bounds stand at a factor from the estimate."""
    return RatioTest(estimate, estimate / factor, estimate * factor, max(1.05, factor), 8)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (known(1.0, 1.02), None, "pass"),
        (known(1.04, 1.01), None, "pass"),  # certain, and too small to matter
        (known(1.10, 1.12), None, "pass"),  # large, and not certain
        (known(1.10, 1.05), None, "candidate"),
        (known(1.10, 1.05), known(1.10, 1.05), "regression"),
        (known(1.10, 1.05), known(1.02, 1.01), "pass"),
        (known(1.10, 1.05), known(1.10, 1.12), "pass"),
        (known(1.10, 1.05), known(1.10, 1.30), "inconclusive"),
        (known(1.00, 1.26), None, "inconclusive"),
        (known(2.00, 1.26), None, "inconclusive"),  # never a failure either
        (known(0.90, 1.05), None, "improvement"),
        (known(0.97, 1.01), None, "pass"),
    ],
)
def test_verdicts(first: RatioTest, second: RatioTest | None, expected: str) -> None:
    assert verdict(first, second) == expected


def test_numbers_that_are_none_decide_nothing() -> None:
    assert verdict(RatioTest(math.nan, math.nan, math.nan, math.nan, 8)) == "inconclusive"


def test_every_comparison_can_be_wrong_in_two_stages_only() -> None:
    assert false_alarm_bound(1) == pytest.approx(1e-4)
    assert false_alarm_bound(30) == pytest.approx(3e-3)
