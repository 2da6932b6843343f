"""Labels at the ends of lines: in the margin where lines end there, beside their points elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from xpo_bench.report.format import clean, number
from xpo_bench.report.render.axes import OUTSIDE
from xpo_bench.report.render.style import GREY, INK
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

SIZE = 8
"""Of the labels, points."""
LONGEST = 17
"""Characters of a label; the legend has the whole name."""
LEADER = {"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkA": 0}
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in pixels."""
Boxes: TypeAlias = "NDArray[np.float64]"
"""Boxes or points as rows, one of them, or a number of each."""


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
    import numpy as np

    if not labels:
        return
    taken: list[Boxes] = []
    points = _inked(ax)
    scale = ax.figure.dpi / 72
    box = ax.bbox
    for label in labels:
        where = _within(ax, label)
        part = (min(max(where[0], 0.0), 1.0), min(max(where[1], 0.0), 1.0))
        x, y = float(box.x0 + part[0] * box.width), float(box.y0 + part[1] * box.height)
        text = short(label.text) + _beyond(label, *where)
        wide, high = (0.62 * len(text) + 0.5) * SIZE * scale, 1.25 * SIZE * scale
        places = _places(x, y, wide, high, scale)
        within = (box.x0, box.y0, box.x1, box.y1)
        best = places[np.argmin(_costs(places, (x, y), taken, points, within))]
        taken.append(best)
        gid = SERIES + label.series
        offset = (float((best[0] + best[2]) / 2 - x) / scale, float((best[1] + best[3]) / 2 - y) / scale)
        near = _apart(best, x, y) < 7 * scale
        ax.annotate(
            text, part, offset, "axes fraction", "offset points", size=SIZE, color=INK, gid=gid,
            ha="center", va="center", annotation_clip=False,
            arrowprops=None if near else LEADER | {"gid": gid},
        )  # fmt: skip


def _places(x: float, y: float, wide: float, high: float, scale: float) -> Boxes:
    """Boxes of that size all around a point, nearer and further ones: (places, 4)."""
    import numpy as np

    out = []
    for away in (6, 14, 24, 36, 50):
        for turn in range(16):
            angle = math.pi * turn / 8
            across, up = math.cos(angle), math.sin(angle)
            # the box touches a circle about the point
            cx = x + across * (away * scale + wide / 2)
            cy = y + up * (away * scale + high / 2)
            out.append((cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2))
    return np.array(out)


def _costs(
    places: Boxes,
    point: tuple[float, float],
    taken: Sequence[Boxes],
    points: Boxes,
    within: Box,
) -> Boxes:
    """How bad each place is: outside the axes, over something, or far from its point; (places,)."""
    import numpy as np

    left, bottom, right, top = places.T[:, :, None]
    x, y = points.T
    covered = ((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).sum(axis=1)
    others = np.array(taken).reshape(-1, 4).T
    overlaps = (left < others[2]) & (others[0] < right) & (bottom < others[3]) & (others[1] < top)
    # the four sides along the first axis: how far each reaches beyond the axes
    beyond = np.stack([within[0] - left, right - within[2], within[1] - bottom, top - within[3]])[..., 0]
    outside = np.maximum(beyond, 0.0).sum(axis=0)
    out: Boxes = 1000 * overlaps.sum(axis=1) + 20 * outside + 4 * covered + 0.3 * _apart(places.T, *point)
    return out


def _apart(b: Boxes, x: float, y: float) -> Boxes:
    """How far a point is from a box, or from several: (4,) or (4, boxes)."""
    import numpy as np

    across, up = (np.maximum(0.0, np.maximum(b[i] - at, at - b[i + 2])) for i, at in enumerate((x, y)))
    out: Boxes = np.hypot(across, up)
    return out


def _inked(ax: Axes) -> Boxes:
    """Points of all lines in pixels, close enough that no label slips between them: (points, 2)."""
    import numpy as np

    out = [np.empty((0, 2))]
    for line in ax.get_lines():
        if line.get_transform().contains_branch(ax.transData):
            xy = line.get_transform().transform(np.column_stack(line.get_data(orig=False)))
            xy = xy[np.isfinite(xy).all(axis=1)]
            step = np.diff(xy, axis=0)
            pieces = np.minimum(200, (np.hypot(*step.T) / 3).astype(int) + 1)
            # the k-th of the pieces of each step, k from 0
            k = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            of = np.repeat(np.arange(len(step)), pieces)
            out.append(xy[of] + step[of] * (k / pieces[of])[:, None])
            out += [xy[-1:]] * 3  # the marker at the end
    return np.concatenate(out)
