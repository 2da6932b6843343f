"""p-values and their correction against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from xpo_bench.statistics import Estimate, estimate, holm, p_value


def test_holm() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 16):
        p = rng.uniform(0, 0.2, n).round(2)  # with ties
        np.testing.assert_allclose(holm(p.tolist()), multipletests(p, method="holm")[1])
    assert holm([]) == []


def test_p_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 7)
    found = estimate(values.tolist())
    assert found is not None
    assert p_value(found) == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue)
    assert p_value(Estimate(1.0, 1.0, 3)) == pytest.approx(0.05)  # the interval ends at zero
    assert p_value(Estimate(1.0, None, 1)) is None
    assert p_value(Estimate(1.0, 0.0, 3)) == 0
    assert p_value(Estimate(0.0, 0.0, 3)) == 1


def test_p_with_a_variance_that_all_runs_share() -> None:
    assert p_value(Estimate(1.0, 0.0, 2), 0.25) == pytest.approx(
        2 * scipy_stats.norm.sf(2)
    )  # nothing else is unknown
    spread = (0.5 / scipy_stats.t.ppf(0.975, 2)) ** 2
    expected = 2 * scipy_stats.t.sf(
        1 / np.sqrt(2 * spread), 2 * 4
    )  # half of the variance on 2 degrees of freedom
    assert p_value(Estimate(1.0, 0.5, 3), spread) == pytest.approx(expected)
