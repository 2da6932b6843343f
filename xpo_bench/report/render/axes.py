"""Axes that a report's figures share: steps, logarithms in plain text, and few ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FEW = 50
"""Runs of at most this many steps are drawn on a linear axis."""


def steps_axis(ax: Axes, end: float) -> None:
    """Steps from 0 on, logarithmic above 1: that is how evaluations are spaced."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    ax.set_xlabel("steps")
    if end <= FEW:
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
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
