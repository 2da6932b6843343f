"""On-policy samples against the initial policy's."""

from __future__ import annotations

import pytest

from xpo_bench.metrics.gold import gold_gain, sample_length, win_rate


def test_win_rate_compares_samples_of_one_prompt() -> None:
    # prompt 1: 3 beats both, 0 ties one of two and loses to the other; prompt 2: everything ties
    assert win_rate([[3, 0], [1, 1]], [[0, 2], [1, 1]]) == pytest.approx(((1 + 1 + 0.5 + 0) / 4 + 0.5) / 2)


def test_a_policy_ties_with_itself() -> None:
    assert win_rate([[3, 0, 7]], [[3, 0, 7]]) == 0.5
    assert gold_gain([[3, 0, 7]], [[3, 0, 7]]) == 0


def test_gain_is_the_difference_of_means() -> None:
    assert gold_gain([[2, 4], [0, 0]], [[1, 1], [1, 1]]) == pytest.approx(0.5)


def test_length_is_a_mean() -> None:
    assert sample_length([1, 2, 6]) == 3
