"""Draws curves over steps, and reward against KL under the exact frontier."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Series
from xpo_bench.report.figures import PANELS, CurvesFigure, FrontierFigure
from xpo_bench.report.render.axes import decades, power, steps_axis, symmetric
from xpo_bench.report.render.style import LineStyles, Style, canvas
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.runs import SeedGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT = 500
"""Axes whose lines spread over more than this are drawn on a symmetric log scale."""
WIDE = 3
"""A band this many times wider than its panel says nothing there and is left out."""
ROUNDING = 1e-9
"""Lines that spread over less than this fraction of their size are flat."""
INK = "#000000"


def draw_curves(figure: CurvesFigure, styles: LineStyles) -> Figure:
    """Up to three panels side by side."""
    columns = min(3, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    faint = 0.16 if len(figure.rows) < 8 else 0.08
    drawn, axes = canvas(rows, columns, 3.5 * columns, 2.5 * rows)
    for ax, metric in zip(axes, figure.panels, strict=False):
        lines = [
            (i, g, points)
            for i, g in enumerate(figure.rows)
            if len(points := figure.of.series[g].get(metric, {})) > 1
        ]
        _panel(ax, metric, lines, styles, faint)
    for ax in axes[len(figure.panels) :]:
        ax.remove()
    return drawn


def _panel(
    ax: Axes,
    metric: str,
    lines: Sequence[tuple[int, SeedGroup, Series]],
    styles: LineStyles,
    faint: float,
) -> None:
    """One metric: a line per row and its band, on axes that hold the means."""
    means = [band[0] for _, _, points in lines for band in points.values()]
    least, most = min(means), max(means)
    flat = most - least < ROUNDING * max(1.0, abs(most))
    # a quarter of the range above and below; a flat line stands in the middle
    room = 0.25 * (most - least) if not flat else 0.1 * abs(most) if abs(most) > ROUNDING else 0.1
    for i, g, points in lines:
        steps = list(points)
        mean, low, high = (list(column) for column in zip(*points.values(), strict=True))
        ax.plot(steps, mean, gid=f"{SERIES}{i}", **styles.line(g.label))
        width = statistics.median(top - bottom for top, bottom in zip(high, low, strict=True))
        # with a quarter on either side the panel is 6 times the room high
        if low != high and width < WIDE * 6 * room:
            style: Style = {"color": styles.colour(g.label), "alpha": faint, "lw": 0}
            ax.fill([*steps, *steps[::-1]], [*low, *high[::-1]], gid=f"{SERIES}{i}", **style)
    steps_axis(ax, max(step for _, _, points in lines for step in points))
    if metric == "loss" and least > 0 and most > 50 * least:
        ax.set_yscale("log")
        decades(ax.yaxis)
    elif (metric == "kl" and most > 20) or (not metric.endswith("accuracy") and most - least > CUT):
        symmetric(ax, 1.0)
    else:
        # an interval of two seeds may be far wider than all means: it is cut, not the means
        bottom, top = (-math.inf, math.inf) if flat else ax.get_ylim()
        ax.set_ylim(max(least - room, bottom), min(most + room, top))
    ax.set_title(PANELS[metric])


def draw_frontier(figure: FrontierFigure, styles: LineStyles) -> Figure:
    """The frontier as a thick line, every row's way beneath it, its end marked."""
    drawn, (ax,) = canvas(1, 1, 7.5, 4.4)
    top = max(figure.exact[-1][0], 1e-2)
    ax.plot(*zip(*_thinned(figure.exact, top / 5000), strict=True), color=INK, lw=2.2, zorder=1)
    for i, g in enumerate(figure.rows):
        known = figure.of.series[g]
        kl, reward = ([band[0] for band in known[m].values()] for m in ("kl", "gold_reward"))
        # one of them may have been evaluated less often than the other
        n, colour = min(len(kl), len(reward)), styles.colour(g.label)
        ax.plot(kl[:n], reward[:n], gid=f"{SERIES}{i}", lw=0.9, alpha=0.7, **styles.line(g.label))
        ax.plot(kl[-1:], reward[-1:], styles.marker(g.label), ms=5, color=colour, gid=f"{SERIES}{i}")
    ax.set_xlabel("KL(π‖π_ref) (nats)")
    ax.set_ylabel("E[reward]")
    ax.set_title("thick: the exact frontier, π ∝ π_ref·exp(r/b) at every b; dots: ends of training")
    _root_axis(ax, top)
    return drawn


def _thinned(points: Sequence[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    """Both ends, and of the rest those that are some way from the point before."""
    last = len(points) - 1
    return [p for i, p in enumerate(points) if i in (0, last) or p[0] - points[i - 1][0] > apart]


def _root_axis(ax: Axes, top: float) -> None:
    """KL on a scale of its square root.

    Near the reference the reward that can be had grows as √KL, so that on this scale the frontier is concave
    and a chord of it lies below it.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    ax.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ax.set_xlim(0, ax.get_xlim()[1])
    ticks = [a * 10.0**k for k in range(-3, 4) for a in (1, 3)]
    ax.xaxis.set_major_locator(FixedLocator([0, *(t for t in ticks if t > top / 200)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))
