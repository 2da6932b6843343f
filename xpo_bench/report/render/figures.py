"""The figures of a report as charts of its page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.figures import ExperimentFigure, Figure, SweepFigure, ThroughputFigure
from xpo_bench.report.render.curves import draw_curves, draw_losses
from xpo_bench.report.render.drawing import Chart, Drawing, Studio
from xpo_bench.report.render.frontier import draw_frontier
from xpo_bench.report.render.style import LineStyles
from xpo_bench.report.render.sweeps import draw_sweep, draw_throughput
from xpo_bench.report.task_figures import CurvesFigure, FrontierFigure, LossFigure

if TYPE_CHECKING:
    from xpo_bench.report.content import Report


def charts(figures: Sequence[Figure], studio: Studio, styles: LineStyles) -> list[Chart]:
    """Those of the figures that have something to draw."""
    return [studio.chart(_drawing(f, styles), f.caption, f.data) for f in figures if not f.empty]


def styles_of(figures: Iterable[Figure], report: Report) -> LineStyles:
    """One style per algorithm of the report; those that speak in one chart are told apart first."""
    charts = [f.algorithms for f in figures if not f.empty]
    return LineStyles.of(charts, sorted({r.algorithm.name for r in report.records}), report.groups)


def _drawing(f: Figure, styles: LineStyles) -> Drawing:
    match f:
        case CurvesFigure():
            return draw_curves(f, styles)
        case LossFigure():
            return draw_losses(f, styles)
        case FrontierFigure():
            return draw_frontier(f, styles)
        case SweepFigure():
            return draw_sweep(f, styles)
        case ThroughputFigure():
            return draw_throughput(f, styles)
        case ExperimentFigure():
            return f.plot.draw(f.rows, styles)
