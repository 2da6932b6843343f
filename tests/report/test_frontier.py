"""The frontier and the paths under it: with the same interpolation nothing crosses it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpo_bench.report.frontier import Plane, along, frontier, hull, mean_frontier


def at(line: Sequence[Plane], kl: float) -> float:
    """The height of a line in the plane of KL and reward; level before its first point and after its last."""
    x = [p[0] for p in line]
    i = bisect.bisect_right(x, kl)
    if i in (0, len(x)):
        return line[min(i, len(x) - 1)][1]
    (a, b), (c, d) = line[i - 1], line[i]
    return b + (d - b) * (kl - a) / (c - a)


def known(scale: float, kls: Sequence[float]) -> list[Plane]:
    """Points of a frontier that grows as the root of KL and has a ceiling."""
    return [(kl, scale * math.sqrt(kl) / (1 + 0.1 * math.sqrt(kl))) for kl in kls]


def test_the_hull_lies_above_its_points_and_is_concave() -> None:
    points = [(0.0, 0.0), (1.0, 1.0), (1.0, 2.0), (2.0, 1.5), (3.0, 3.0), (4.0, 3.2)]
    assert hull(points) == [(0.0, 0.0), (1.0, 2.0), (3.0, 3.0), (4.0, 3.2)]
    assert hull(points[:1]) == points[:1]


def test_seeds_of_one_frontier_have_it_as_their_mean() -> None:
    line = known(2.0, [0, 0.1, 0.5, 1, 2])
    for kl in (0.1, 0.3, 1.0, 1.7):
        assert at(mean_frontier([line, line, line]), kl) == pytest.approx(at(hull(line), kl))


steps = st.lists(st.floats(0, 3), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.floats(0.5, 5), steps), min_size=1, max_size=4), st.integers(0, 3))
def test_no_mean_path_crosses_the_frontier(seeds: list[tuple[float, list[float]]], alone: int) -> None:
    """Every seed has a frontier of its own, and every path spends the KL of a step in its own order."""
    length = min(len(kls) for _, kls in seeds)
    by_seed = {
        i: known(scale, [0.0, *(k for _, kls in seeds for k in kls)]) for i, (scale, _) in enumerate(seeds)
    }
    rows = [list(by_seed), [alone % len(seeds)]]
    line = frontier(by_seed, rows)
    for row in rows:
        paths = [known(seeds[i][0], [0.0, *seeds[i][1][:length]]) for i in row]
        mean = [
            (math.fsum(p[0] for p in points) / len(row), math.fsum(p[1] for p in points) / len(row))
            for points in zip(*paths, strict=True)
        ]
        for kl, reward in zip(*along(mean, math.sqrt), strict=True):
            assert reward <= at(line, kl) + 1e-9


def test_a_line_in_pieces_is_the_line() -> None:
    path = [(0.0, 1.0), (4.0, 3.0), (1.0, 0.0)]
    x, y = along(path, math.sqrt)
    assert len(x) > 50
    for kl, reward in zip(x, y, strict=True):
        assert reward == pytest.approx(1 + kl / 2) or reward == pytest.approx(kl - 1)
    assert [(x[0], y[0]), (x[-1], y[-1])] == [path[0], path[-1]]
    assert along(path[:1], math.sqrt) == ([0.0], [1.0])
