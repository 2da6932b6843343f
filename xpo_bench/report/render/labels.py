"""Labels at the ends of lines: in the margin where lines end there, beside their points elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from xpo_bench.report.format import clean, number
from xpo_bench.report.render.axes import OUTSIDE
from xpo_bench.report.render.style import GREY, INK
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 8
"""Of the labels, points."""
LONGEST = 17
"""Characters of a label; the legend has the whole name."""
LEADER = {"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkA": 0}
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in pixels."""


@dataclass(frozen=True)
class Label:
    """What a line is called, and where it ends.

    Args:
        series: whose gid it has. beside: whether it stands beside the point, not in the right margin.
    """

    series: str
    text: str
    x: float
    y: float
    beside: bool = False


def place(ax: Axes, labels: Sequence[Label]) -> None:
    """Write them; the axes have their limits and their place in the figure."""
    _in_margin(ax, [label for label in labels if not label.beside])
    _beside(ax, [label for label in labels if label.beside])


def short(text: str) -> str:
    """A name in the width of a label."""
    name = clean(text)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _in_margin(ax: Axes, labels: Sequence[Label]) -> None:
    """One below the other at the height of their lines, moved apart where they would overlap."""
    heights = [_within(ax, label)[1] for label in labels]
    at = spread([min(max(h, 0.0), 1.0) for h in heights], 1.2 * SIZE * ax.figure.dpi / 72 / ax.bbox.height)
    for label, height, y in zip(labels, heights, at, strict=True):
        text, end = short(label.text) + _beyond(label, 0.0, height), min(max(height, 0.0), 1.0)
        gid = SERIES + label.series
        ax.plot([1, 1.04], [end, y], color=GREY, lw=0.5, clip_on=False, transform=ax.transAxes, gid=gid)
        ax.text(1.05, y, text, size=SIZE, color=INK, va="center", transform=ax.transAxes, gid=gid)


def _within(ax: Axes, label: Label) -> tuple[float, float]:
    """Where a line ends, in parts of the axes from the left and from the bottom."""
    x, y = (ax.transData - ax.transAxes).transform((label.x, label.y))
    return float(x), float(y)


def _beyond(label: Label, x: float, y: float) -> str:
    """In which direction a line has left the axes, and where it ends; empty within them."""
    if x > 1 + OUTSIDE:
        return f" → {number(label.x, 2)}"
    if -OUTSIDE <= y <= 1 + OUTSIDE:
        return ""
    return f" {'↑' if y > 1 else '↓'} {number(label.y, 2)}".replace("-", "−")


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places at least `gap` apart within 0 to 1, in the order of the wanted ones and near them."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    # clusters (sum of where their first would stand, members), merged while they overlap
    clusters: list[tuple[float, list[int]]] = []
    for i in order:
        clusters.append((wanted[i], [i]))
        while len(clusters) > 1 and _bottom(clusters[-1], gap) < _top(clusters[-2], gap) + gap:
            (total, members), (more, others) = clusters[-2:]
            clusters[-2:] = [(total + more - gap * len(members) * len(others), members + others)]
    out = [0.0] * len(wanted)
    for cluster in clusters:
        for k, i in enumerate(cluster[1]):
            out[i] = _bottom(cluster, gap) + k * gap
    return out


def _bottom(cluster: tuple[float, list[int]], gap: float) -> float:
    """Where the first of a cluster stands: the mean of what its members want, within 0 to 1."""
    total, members = cluster
    return min(max(total / len(members), 0.0), 1 - gap * (len(members) - 1))


def _top(cluster: tuple[float, list[int]], gap: float) -> float:
    return _bottom(cluster, gap) + gap * (len(cluster[1]) - 1)


def _beside(ax: Axes, labels: Sequence[Label]) -> None:
    """Each where it covers the least: of lines, of points, and of the labels before it."""
    taken: list[Box] = []
    points = _inked(ax)
    scale = ax.figure.dpi / 72
    box = ax.bbox
    for label in labels:
        where = _within(ax, label)
        part = (min(max(where[0], 0.0), 1.0), min(max(where[1], 0.0), 1.0))
        x, y = float(box.x0 + part[0] * box.width), float(box.y0 + part[1] * box.height)
        text = short(label.text) + _beyond(label, *where)
        wide, high = (0.62 * len(text) + 0.5) * SIZE * scale, 1.25 * SIZE * scale
        within = (box.x0, box.y0, box.x1, box.y1)
        cost = partial(_cost, point=(x, y), taken=taken, points=points, within=within)
        best = min(_places(x, y, wide, high, scale), key=cost)
        taken.append(best)
        gid = SERIES + label.series
        offset = (((best[0] + best[2]) / 2 - x) / scale, ((best[1] + best[3]) / 2 - y) / scale)
        near = _apart(best, x, y) < 7 * scale
        ax.annotate(
            text, part, offset, "axes fraction", "offset points", size=SIZE, color=INK, gid=gid,
            ha="center", va="center", annotation_clip=False,
            arrowprops=None if near else LEADER | {"gid": gid},
        )  # fmt: skip


def _places(x: float, y: float, wide: float, high: float, scale: float) -> list[Box]:
    """Boxes of that size all around a point, nearer and further ones."""
    out = []
    for away in (6, 14, 24, 36, 50):
        for turn in range(16):
            angle = math.pi * turn / 8
            across, up = math.cos(angle), math.sin(angle)
            # the box touches a circle about the point
            cx = x + across * (away * scale + wide / 2)
            cy = y + up * (away * scale + high / 2)
            out.append((cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2))
    return out


def _cost(
    b: Box,
    point: tuple[float, float],
    taken: Sequence[Box],
    points: Sequence[tuple[float, float]],
    within: Box,
) -> float:
    """How bad a place is: outside the axes, over something, or far from its point."""
    x0, y0, x1, y1 = within
    outside = max(0.0, x0 - b[0]) + max(0.0, b[2] - x1) + max(0.0, y0 - b[1]) + max(0.0, b[3] - y1)
    covered = sum(b[0] <= x <= b[2] and b[1] <= y <= b[3] for x, y in points)
    overlaps = sum(b[0] < t[2] and t[0] < b[2] and b[1] < t[3] and t[1] < b[3] for t in taken)
    return 1000 * overlaps + 20 * outside + 4 * covered + 0.3 * _apart(b, *point)


def _apart(b: Box, x: float, y: float) -> float:
    """How far a point is from a box."""
    return math.hypot(max(b[0] - x, 0.0, x - b[2]), max(b[1] - y, 0.0, y - b[3]))


def _inked(ax: Axes) -> list[tuple[float, float]]:
    """Points of all lines in pixels, close enough that no label slips between them."""
    import numpy as np

    out: list[tuple[float, float]] = []
    for line in ax.get_lines():
        if line.get_transform().contains_branch(ax.transData):
            xy = line.get_transform().transform(np.column_stack(line.get_data(orig=False)))
            xy = xy[np.isfinite(xy).all(axis=1)]
            for a, b in pairwise(xy):
                pieces = min(200, int(np.hypot(*(b - a)) / 3) + 1)
                out += [tuple(a + (b - a) * k / pieces) for k in range(pieces)]
            out += [tuple(p) for p in xy[-1:]] * 3  # the marker at the end
    return out
