"""Draws reward against KL under the exact frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.frontier import Plane, along
from xpo_bench.report.render.axes import limits, mark_edges, mark_points, power
from xpo_bench.report.render.curves import legend_of
from xpo_bench.report.render.drawing import ALONE, Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import BACKGROUND, FRONTIER, OTHERS, LineStyle, LineStyles
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.task_figures import FrontierFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXACT = "exact"
"""The series of the frontier."""
Path = tuple[str, str, LineStyle, Sequence[Plane]]
"""(series, label, style, points)."""


def draw_frontier(figure: FrontierFigure, styles: LineStyles) -> Drawing:
    """The frontier as a thick line, every row's path beneath it, its end marked."""
    names = {g: str(i) for i, g in enumerate(figure.speaking)}
    paths: list[Path] = [
        (names.get(g, OTHERS), g.label, styles.row(g.label) if g in names else BACKGROUND, figure.paths[g])
        for g in sorted(figure.rows, key=lambda g: g in names)
    ]
    rows = legend_of(figure.speaking, len(figure.rows), styles)
    legend = [Entry(EXACT, "exact frontier", FRONTIER), *rows]
    return Drawing([Panel(partial(plane, exact=figure.exact, paths=paths), *ALONE)], legend)


def plane(
    ax: Axes, exact: Sequence[Plane], paths: Sequence[Path], title: str = "", marks: bool = False
) -> list[Label]:
    """Paths under the frontier, their ends marked and named.

    Args:
        marks: mark every point of a path, not its end alone.
    """
    loud = [path for path in paths if path[0] != OTHERS] or paths
    ends = [[(0.0, max(_root(p[0]) for p in path[3])) for path in some] for some in (loud, paths)]
    _root_axis(ax, limits(*ends)[1] ** 2)
    ax.plot(*along(exact, math.sqrt), gid=SERIES + EXACT, zorder=1, **FRONTIER.line)
    for series, _, style, points in paths:
        ax.plot(*along(points, _root), gid=SERIES + series, **(style.line | {"lw": style.width * 0.7}))
    right = ax.get_xlim()[1]
    least, most = limits([_rewards(path, right) for path in loud], [_rewards(path, right) for path in paths])
    most = max([most, *(r for kl, r in exact if kl <= right)])
    ax.set_ylim(least - 0.06 * (most - least), most + 0.06 * (most - least))
    for series, _, style, points in paths:
        mark_edges(ax, series, style, *along(points, _root))
        mark_points(ax, series, style, *zip(*(points if marks else points[-1:]), strict=True))
    ax.set_xlabel("KL(π‖π_ref) (nats)")
    ax.set_ylabel("E[reward]")
    ax.set_title(title)
    return [Label(series, label, *points[-1], beside=True) for series, label, _, points in loud]


def _rewards(path: Path, right: float) -> tuple[float, float]:
    """The lowest and the highest reward of a path within the axes."""
    shown = [reward for kl, reward in path[3] if kl <= right] or [path[3][-1][1]]
    return min(shown), max(shown)


def _root(kl: float) -> float:
    return math.sqrt(max(kl, 0.0))


def _root_axis(ax: Axes, top: float) -> None:
    """KL on a scale of its square root, on which small deviations from the reference are not crowded.

    Near the reference the reward that can be had grows as √KL.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    top = max(1.08 * top, 1e-2)
    ax.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ax.set_xlim(0, top)
    ticks = [a * 10.0**k for k in range(-3, 4) for a in (1, 3)]
    ax.xaxis.set_major_locator(FixedLocator([0, *(t for t in ticks if top / 100 < t <= top)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))
