"""The exact frontier, and paths under it, as lines in the plane of KL and reward.

Between two evaluations a path is linear in that plane, and so is the frontier between the points where it is
known. It is concave, so that a chord between points under it stays under it on whatever scale KL is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

Plane = tuple[float, float]
"""(KL, reward)."""
PIECES = 120
"""Of a line that crosses the whole axis, on a scale that bends it."""


def hull(points: Iterable[Plane]) -> list[Plane]:
    """The least line above the points that is concave and never falls, by KL: more of it allows no less."""
    out: list[Plane] = []
    most = -math.inf
    for kl, reward in sorted(points):
        p = (kl, most := max(most, reward))
        # of two at the same KL, the upper one comes last
        while out and (out[-1][0] == p[0] or (len(out) > 1 and _turns_up(out[-2], out[-1], p))):
            out.pop()
        out.append(p)
    return out


def _turns_up(a: Plane, b: Plane, c: Plane) -> bool:
    """Whether b lies on or below the chord from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def mean_frontier(frontiers: Sequence[Sequence[Plane]]) -> list[Plane]:
    """The frontier of a mean over seeds.

    At a KL it is max (Σ r_i)/n over points (k_i, r_i), one below each frontier, with (Σ k_i)/n = KL.

    The mean of paths at equal steps spends a different KL in each seed, and may lie above the mean of the
    frontiers at its mean KL, but never above this.
    """
    hulls = [hull(f) for f in frontiers]
    n = len(hulls)
    kl, reward = (math.fsum(h[0][i] for h in hulls) / n for i in (0, 1))
    out = [(kl, reward)]
    pieces = [(b[0] - a[0], b[1] - a[1]) for h in hulls for a, b in pairwise(h)]
    # the best use of a little KL is where the slope is steepest
    for across, up in sorted(pieces, key=lambda p: -p[1] / p[0]):
        kl, reward = kl + across / n, reward + up / n
        out.append((kl, reward))
    return out


def frontier(by_seed: Mapping[int, Sequence[Plane]], seeds: Iterable[Sequence[int]]) -> list[Plane]:
    """The frontier above the means of rows.

    Args:
        by_seed: seed -> known points of its frontier. seeds: of every row; rows may differ in them.
    """
    sets = {tuple(sorted(set(row))) for row in seeds}
    return hull(p for row in sets for p in mean_frontier([by_seed[seed] for seed in row]))


def along(points: Sequence[Plane], scale: Callable[[float], float]) -> tuple[list[float], list[float]]:
    """A line that is straight in the plane, in pieces so short that a bent scale of KL draws it as it is."""
    if len(points) < 2:
        return [p[0] for p in points], [p[1] for p in points]
    whole = max(scale(p[0]) for p in points) - min(scale(p[0]) for p in points)
    x, y = [], []
    for a, b in pairwise(points):
        pieces = max(1, math.ceil(PIECES * abs(scale(b[0]) - scale(a[0])) / whole)) if whole > 0 else 1
        for i in range(pieces):
            # even steps in √KL, where such lines bend most
            t = (i / pieces) ** 2 if b[0] >= a[0] else 1 - (1 - i / pieces) ** 2
            x.append(a[0] + t * (b[0] - a[0]))
            y.append(a[1] + t * (b[1] - a[1]))
    return [*x, points[-1][0]], [*y, points[-1][1]]
