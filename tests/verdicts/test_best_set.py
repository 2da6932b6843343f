"""All pairs at once: the best set, ranks, and how often equal algorithms pass for different."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from xpo_bench.verdicts.best_set import Field, every_pair, moderate, stand
from xpo_bench.verdicts.differences import over_runs


def field(values: NDArray[np.float64], higher: bool = True) -> Field:
    """Of scores, shape (algorithms, seeds)."""
    seeds = range(values.shape[1])
    pairs = {(i, j): over_runs((values[i] - values[j]).tolist(), seeds) for i, j in every_pair(len(values))}
    return stand(values.mean(1).tolist(), pairs, higher)


def test_the_best_and_what_cannot_be_separated_from_it() -> None:
    rng = np.random.default_rng(0)
    values = 0.01 * rng.normal(size=(3, 5)) + np.array([[0.9], [0.895], [0.3]])
    found = field(values)
    assert [s.best for s in found.standings] == [True, True, False]
    assert [s.ranks for s in found.standings] == [(1, 2), (1, 2), (3, 3)]
    turned = field(values, higher=False)
    assert [s.ranks for s in turned.standings] == [(2, 3), (2, 3), (1, 1)]
    assert turned.leader == 2


def test_equal_algorithms_are_not_in_the_family() -> None:
    values = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
    found = field(values)
    assert set(found.tests) == {(0, 2), (1, 2)}
    assert found.corrected(1, 0) is None
    assert found.corrected(2, 0) == found.tests[0, 2]


Draw = Callable[[np.random.Generator, int, int], NDArray[np.float64]]


def alike(rng: np.random.Generator, algorithms: int, seeds: int) -> NDArray[np.float64]:
    return rng.normal(size=(algorithms, seeds)) + rng.normal(size=seeds)


def unlike(rng: np.random.Generator, algorithms: int, seeds: int) -> NDArray[np.float64]:
    return np.exp(rng.normal(size=(algorithms, 1))) * rng.normal(size=(algorithms, seeds))


@pytest.mark.parametrize(("algorithms", "seeds"), [(2, 3), (3, 3), (6, 3), (12, 3), (4, 5), (20, 5)])
@pytest.mark.parametrize("draw", [alike, unlike])
def test_equal_algorithms_pass_for_different_at_most_as_often_as_is_said(
    draw: Draw, algorithms: int, seeds: int
) -> None:
    """1,000 tables of algorithms that do not differ, of one spread or many: 5 % of tables, not of pairs."""
    rng, tables = np.random.default_rng(algorithms * seeds), 1000 if algorithms < 12 else 300
    wrong = sum(not all(s.best for s in field(draw(rng, algorithms, seeds)).standings) for _ in range(tables))
    # 2.3 standard errors of the fraction beside the 5 %
    assert wrong / tables <= 0.05 + 2.3 * (0.05 * 0.95 / tables) ** 0.5


def test_pairs_that_share_their_spread_find_more() -> None:
    """18 algorithms over three seeds: one far behind is found, which two degrees of freedom never could."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(18, 3))
    values[0] -= 15
    assert not field(values).standings[0].best


def test_few_algorithms_keep_their_own_spread() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 3))
    pairs = {(i, j): over_runs((values[i] - values[j]).tolist(), range(3)) for i, j in every_pair(4)}
    assert moderate(pairs, 4) == pairs
