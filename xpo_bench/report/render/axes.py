"""Axes of figures: limits from the bulk of the series, steps, and few ticks in plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xpo_bench.report.render.style import LineStyle
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import NDArray

FEW = 50
"""Runs of at most this many steps are drawn on a linear axis."""
STRETCH = 5
"""Series that make an axis this many times longer than the others need are not what it is made for."""
LONGER = 1.5
"""An axis may become this much longer for rows that do not speak."""
OUTSIDE, FAR_OUT = 1e-6, 1e6
"""In parts of the axes: what is further beyond them has left; where an infinite value stands."""
EDGE = "edge"
"""What the marks are called where a line leaves its axes."""
_ABOVE, _BELOW, _RIGHT = 6, 7, 5
"""Matplotlib's carets, which are no algorithm's marker."""
Range = tuple[float, float]


def bulk(ranges: Sequence[Range]) -> Range:
    """From the lowest to the highest of the series, without those few that would flatten all others.

    A quarter of them may be left out, where the axis becomes `STRETCH` times shorter and the others still
    have a range.
    """
    bottom, top = min(r[0] for r in ranges), max(r[1] for r in ranges)
    for n in range(1, len(ranges) // 4 + 1):
        least, most = min((_without(ranges, k, n - k) for k in range(n + 1)), key=lambda r: r[1] - r[0])
        if 0 < STRETCH * (most - least) < top - bottom:
            return least, most
    return bottom, top


def limits(loud: Sequence[Range], grey: Sequence[Range] = ()) -> Range:
    """The bulk of the series that speak, with the others that fit beside it."""
    bottom, top = bulk(loud)
    long = LONGER * (top - bottom)
    for low, high in grey:
        if max(top, high) - min(bottom, low) <= long:
            bottom, top = min(bottom, low), max(top, high)
    return bottom, top


def _without(ranges: Sequence[Range], low: int, high: int) -> Range:
    """The range of all but some that reach lowest, and some that reach highest."""
    rest = sorted(ranges)[low:]
    kept = sorted(rest, key=lambda r: r[1])[: len(rest) - high]
    return min(r[0] for r in kept), max(r[1] for r in kept)


def mark_edges(ax: Axes, series: str, style: LineStyle, x: Sequence[float], y: Sequence[float]) -> None:
    """A caret where a line leaves the axes above, below or on the right."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):  # 0 on a logarithmic axis is far below it
        points = (ax.transData - ax.transAxes).transform(np.column_stack([x, y]))
    points = np.nan_to_num(points, neginf=-FAR_OUT, posinf=FAR_OUT)
    sides = [
        _RIGHT if a > 1 + OUTSIDE else _ABOVE if b > 1 + OUTSIDE else _BELOW if b < -OUTSIDE else 0
        for a, b in points
    ]
    for i, side in enumerate(sides):
        if side and (i == 0 or sides[i - 1] != side):
            before = points[i - 1] if i and not sides[i - 1] else points[i]
            at = np.clip(_crossing(before, points[i], side), 0, 1)
            ax.plot(
                *at[:, None], marker=side, ms=6, color=style.colour, mew=0, ls="", clip_on=False, zorder=4,
                label=EDGE, gid=SERIES + series, transform=ax.transAxes,
            )  # fmt: skip


def _crossing(inside: NDArray[Any], outside: NDArray[Any], side: int) -> NDArray[Any]:
    """Where the line between two points, in parts of the axes, crosses one of their edges."""
    import numpy as np

    axis, edge = (0, 1.0) if side == _RIGHT else (1, 1.0 if side == _ABOVE else 0.0)
    across = outside[axis] - inside[axis]
    part = (edge - inside[axis]) / across if across else 1.0
    return np.asarray(inside + (outside - inside) * part)


def mark_points(ax: Axes, series: str, style: LineStyle, x: Sequence[float], y: Sequence[float]) -> None:
    """The marker of a line at those of the points that lie within the axes, whole also on their edge."""
    right, (bottom, top) = ax.get_xlim()[1], ax.get_ylim()
    inside = [(a, b) for a, b in zip(x, y, strict=True) if a <= right and bottom <= b <= top]
    if inside and style.marker:
        points = zip(*inside, strict=True)
        ax.plot(*points, ls="", clip_on=False, zorder=3, gid=SERIES + series, **style.mark)


def decades_below(highest: float, n: int, values: Sequence[float]) -> float:
    """Where a logarithmic axis begins: at its lowest value, but at most so many decades below the highest."""
    return max(min((v for v in values if v > 0), default=highest), highest * 10.0**-n)


def steps_axis(ax: Axes, end: float) -> None:
    """Steps from 0 on, logarithmic above 1: that is how evaluations are spaced."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    ax.set_xlabel("steps")
    if end <= FEW:
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
        return
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, end)
    ax.xaxis.set_major_locator(FixedLocator([0, *(10.0**k for k in range(int(math.log10(max(end, 1))) + 1))]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))


def symmetric(ax: Axes, linear: float) -> None:
    """A logarithmic axis on both sides of 0, linear within ±`linear`."""
    from matplotlib.ticker import NullLocator

    ax.set_yscale("symlog", linthresh=linear)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda v, _: power(v))


def decades(axis: Axis) -> None:
    """Powers of ten on a log axis as plain text, few of them and no minor labels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    few = 0 < high < 50 * low  # less than two decades: powers of ten alone would leave one tick or two
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=7))
    axis.set_major_formatter(lambda v, _: power(v))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """0.01, 1, 1000, 10⁻⁵: numbers of ticks without markup."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)  # log10(1000) may be 2.9999999999999996
    mantissa = abs(value) / 10.0**exponent
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    times = "" if abs(mantissa - 1) < 1e-6 else f"{mantissa:.2g}·"
    return f"{'−' if value < 0 else ''}{times}10{digits}"


def few_ticks(ax: Axes, values: Sequence[float]) -> None:
    """The swept values themselves where they are few, powers of ten otherwise."""
    from matplotlib.ticker import FixedLocator, NullLocator

    distinct = sorted(set(values))
    kept: list[float] = []
    span = math.log(distinct[-1] / distinct[0])
    for v in distinct:
        # a label takes about a tenth of the axis
        if not kept or math.log(v / kept[-1]) > 0.09 * span:
            kept.append(v)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))
