"""The interval over studies and seeds: what it comes to where one of them decides alone, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from narrow import present

from xpo_bench.report.studies import over_studies
from xpo_bench.statistics import Estimate, estimate


def test_where_all_studies_choose_alike_it_is_the_interval_over_seeds() -> None:
    seeds = [1.0, 3.0, 4.0]
    found, plain = present(over_studies([seeds, seeds, seeds])), present(estimate(seeds))
    assert found.mean == pytest.approx(plain.mean)
    assert found.half == pytest.approx(plain.half)


def test_where_seeds_do_not_matter_it_is_the_interval_over_studies() -> None:
    studies = [1.0, 3.0, 4.0, 4.5]
    found, plain = present(over_studies([[value] * 5 for value in studies])), present(estimate(studies))
    assert found.mean == pytest.approx(plain.mean)
    assert found.half == pytest.approx(plain.half)


def test_one_study_or_one_seed() -> None:
    assert over_studies([[1.0, 2.0, 4.0]]) == estimate([1.0, 2.0, 4.0])
    assert over_studies([[1.0], [2.0], [4.0]]) == estimate([1.0, 2.0, 4.0])
    assert over_studies([[1.0]]) == Estimate(1.0, None, 1)


def test_a_seed_counts_where_every_study_knows_it() -> None:
    assert over_studies([[1.0, None, 3.0], [2.0, 9.0, 4.0]]) == over_studies([[1.0, 3.0], [2.0, 4.0]])
    assert over_studies([[1.0, None], [None, 2.0]]) is None
    assert over_studies([[], []]) is None


@pytest.mark.parametrize(("studies", "seeds"), [(3, 3), (3, 10), (10, 3)])
@pytest.mark.parametrize(
    ("of_study", "of_seed"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 1.0), (0.0, 0.0)]
)
def test_coverage(studies: int, seeds: int, of_study: float, of_seed: float) -> None:
    """Never below 95 %; the term of the single runs, which is counted twice, may put it above 95 %."""
    rng = np.random.default_rng(0)
    covered, n = 0, 1500
    for _ in range(n):
        y = of_study * rng.normal(size=(studies, 1)) + of_seed * rng.normal(size=(1, seeds))
        y = y + 0.5 * rng.normal(size=(studies, seeds))
        low, high = present(present(over_studies(y.tolist())).interval)
        covered += low <= 0 <= high
    assert covered / n >= 0.94  # the standard error of the simulation is .006


def test_one_study_alone_is_too_sure() -> None:
    """Why studies: where the search decides, the interval over the seeds of one study misses the mean."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(500):
        y = rng.normal(size=(1, 1)) + 0.3 * rng.normal(size=(1, 5))
        low, high = present(present(over_studies(y.tolist())).interval)
        missed += not low <= 0 <= high
    assert missed / 500 > 0.5
