"""The figures of a report as charts of its page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.figures import (
    CurvesFigure,
    ExperimentFigure,
    Figure,
    FrontierFigure,
    SweepFigure,
    ThroughputFigure,
)
from xpo_bench.report.render.axes import power
from xpo_bench.report.render.curves import draw_curves, draw_frontier
from xpo_bench.report.render.style import Chart, Entry, LineStyles, Studio
from xpo_bench.report.render.sweeps import draw_sweep, draw_throughput

if TYPE_CHECKING:
    from matplotlib import figure as plt


def charts(figures: Sequence[Figure], studio: Studio, styles: LineStyles, swept: LineStyles) -> list[Chart]:
    """Those of the figures that have something to draw.

    Args:
        styles: of the rows of the report. swept: of its sweeps.
    """
    drawn = (_chart(f, studio, styles, swept) for f in figures if not f.empty)
    return [chart for chart in drawn if chart]


def _chart(f: Figure, studio: Studio, styles: LineStyles, swept: LineStyles) -> Chart | None:
    match f:
        case CurvesFigure():
            return studio.chart(partial(draw_curves, f, styles), f.caption, _rows(f, styles))
        case FrontierFigure():
            return studio.chart(partial(draw_frontier, f, styles), f.caption, _rows(f, styles))
        case SweepFigure():
            legend = [swept.entry(name, i) for i, name in enumerate(f.sweeps)]
            return studio.chart(partial(draw_sweep, f, swept), f.caption, legend)
        case ThroughputFigure():
            return studio.chart(partial(draw_throughput, f), f.caption)
        case ExperimentFigure():
            return studio.chart(partial(_upright, f), f.caption)


def _rows(f: CurvesFigure | FrontierFigure, styles: LineStyles) -> list[Entry]:
    return [styles.entry(g.label, i) for i, g in enumerate(f.rows)]


def _upright(f: ExperimentFigure) -> plt.Figure | None:
    """Powers of ten on logarithmic axes as plain text, since the page reads no markup."""
    from matplotlib.ticker import NullFormatter

    drawn = f.draw(f.data)
    for ax in drawn.axes if drawn is not None else ():
        for axis in (ax.xaxis, ax.yaxis):
            if "Log" in type(axis.get_major_formatter()).__name__:
                axis.set_major_formatter(lambda v, _: power(v))
            if "Log" in type(axis.get_minor_formatter()).__name__:
                axis.set_minor_formatter(NullFormatter())
    return drawn
