"""Interquartile means and probabilities of improvement."""

import numpy as np
import pytest

from xpo_bench.statistics import improvement, iqm


def test_iqm_ignores_outer_quarters_and_order() -> None:
    values = [0.0, 1.0, 2.0, 1000.0]
    assert iqm(values)[0] == 1.5
    assert iqm(values) == iqm(values[::-1])


def test_interval_covers_at_twenty_runs() -> None:
    rng = np.random.default_rng(0)
    found = [iqm(rng.normal(size=20)) for _ in range(300)]
    assert 0.88 < np.mean([low <= 0 <= high for _, low, high in found]) < 0.98


def test_improvement_counts_pairs_with_half_ties() -> None:
    assert improvement([1, 2], [0]) == 1
    assert improvement([1, 2], [1, 2]) == 0.5
    assert improvement([1, 3], [2, 2, 3]) == pytest.approx(2.5 / 6)
