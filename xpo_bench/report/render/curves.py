"""Draws curves over steps: a panel per quantity, and a panel per algorithm of its loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Series
from xpo_bench.report.format import clean, counted
from xpo_bench.report.render.axes import decades, limits, mark_edges, mark_points, steps_axis, symmetric
from xpo_bench.report.render.drawing import Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import BACKGROUND, OTHERS, LineStyle, LineStyles, Style
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.task_figures import PANELS, CurvesFigure, LossFigure, closed_form

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CUT = 500
"""Axes whose lines spread over more than this are drawn on a symmetric log scale."""
FAR = 20
"""Nats of KL from which a symmetric log scale shows more."""
WIDE = 0.6
"""A band that covers more than this fraction of its panel hides the lines there and is left out."""
ROUNDING = 1e-9
"""Lines that spread over less than this fraction of their size are flat."""
DECADES = 50
"""A loss that falls by this factor is drawn on a logarithmic axis."""
FAINT, FAINTER = 0.14, 0.07
"""How opaque a band is: of at most four rows, and of more."""
SMALL = (2.35, 1.9)
"""Inches of a panel of one loss."""


@dataclass(frozen=True, eq=False)
class Line:
    """One row in a panel: its name, how it is drawn, and its bands over steps."""

    series: str
    label: str
    style: LineStyle
    points: Series
    level: bool

    @property
    def steps(self) -> list[float]:
        """Steps that are drawn; both ends of a level line."""
        return [0, max(self.points)] if self.level else list(self.points)

    @property
    def bands(self) -> list[tuple[float, float, float]]:
        """(mean, low, high) at the steps."""
        every = list(self.points.values())
        # a closed form stands at the reference at step 0 and at its optimum from step 1 on
        return [every[-1]] * 2 if self.level else every

    @property
    def mean(self) -> list[float]:
        """The means at the steps."""
        return [band[0] for band in self.bands]


def draw_curves(figure: CurvesFigure, styles: LineStyles) -> Drawing:
    """A panel per metric; the rows that speak have colours, the others are grey."""
    names = {g: str(i) for i, g in enumerate(figure.speaking)}

    def lines(metric: str) -> list[Line]:
        rows = sorted(figure.rows, key=lambda g: g in names)  # the grey ones lie below
        return [
            Line(
                names.get(g, OTHERS), g.label, styles.row(g.label) if g in names else BACKGROUND, points,
                closed_form(g),
            )
            for g in rows
            if len(points := figure.of.series[g].get(metric, {})) > 1
        ]  # fmt: skip

    panels = [Panel(partial(_panel, lines=lines(m), metric=m, title=PANELS[m])) for m in figure.panels]
    return Drawing(panels, legend_of(figure.speaking, len(figure.rows), styles))


def legend_of(speaking: Sequence[SeedGroup], rows: int, styles: LineStyles) -> list[Entry]:
    """An entry per row that speaks, and one for the others."""
    out = [Entry(str(i), clean(g.label), styles.row(g.label)) for i, g in enumerate(speaking)]
    more = rows - len(speaking)
    return out + [Entry(OTHERS, counted(more, "other row"), BACKGROUND)] * bool(more)


def draw_losses(figure: LossFigure, styles: LineStyles) -> Drawing:
    """A small panel per algorithm."""
    rows = [g for same in figure.panels.values() for g in same]
    panels = []
    for name, same in figure.panels.items():
        lines = [
            Line(
                str(rows.index(g)), g.label.removeprefix(name).strip(), styles.row(g.label),
                figure.of.series[g]["loss"], level=False,
            )
            for g in same
        ]  # fmt: skip
        draw = partial(_panel, lines=lines, metric="loss", title=clean(name), labelled=len(same) > 1)
        panels.append(Panel(draw, *SMALL))
    # a panel's title names its only line
    legend = legend_of(rows, len(rows), styles) if len(rows) > len(panels) else []
    return Drawing(panels, legend, columns=4)


def _panel(ax: Axes, lines: Sequence[Line], metric: str, title: str, labelled: bool = True) -> list[Label]:
    """One metric: a line per row and its band, on axes that hold the bulk of the means."""
    ranges = {line: (min(line.mean), max(line.mean)) for line in lines}
    loud = [line for line in lines if line.series != OTHERS] or lines
    least, most = limits([ranges[line] for line in loud], [ranges[line] for line in lines])
    flat = most - least < ROUNDING * max(1.0, abs(most))
    # room above and below; a flat line stands in the middle
    room = 0.08 * (most - least) if not flat else 0.1 * abs(most) if abs(most) > ROUNDING else 0.1
    steps_axis(ax, max(line.steps[-1] for line in lines))
    for line in lines:
        ax.plot(line.steps, line.mean, gid=SERIES + line.series, **line.style.line)
        if line.series != OTHERS:
            _band(ax, line, FAINT if len(lines) < 5 else FAINTER, widest=WIDE * (most - least + 2 * room))
    if metric == "loss" and least > 0 and most > DECADES * least:
        ax.set_yscale("log")
        ax.set_ylim(least / 1.5, most * 1.5)
        decades(ax.yaxis)
    elif (metric == "kl" and most > FAR) or (not metric.endswith("accuracy") and most - least > CUT):
        symmetric(ax, 1.0)
        ax.set_ylim(
            *(end + math.copysign(0.3 * abs(end) + 0.5, way) for end, way in ((least, -1), (most, 1)))
        )
    else:
        top = min(most + room, 1.02) if metric.endswith("accuracy") and not flat else most + room
        ax.set_ylim(least - room, top)
    ax.set_title(title)
    for i, line in enumerate(lines):
        mark_edges(ax, line.series, line.style, line.steps, line.mean)
        if line.series != OTHERS:
            _markers(ax, line, (i + 1) / (len(lines) + 1))
    return [Label(line.series, line.label, line.steps[-1], line.mean[-1]) for line in loud if labelled]


def _band(ax: Axes, line: Line, opaque: float, widest: float) -> None:
    """The interval of a line, unless it would cover the panel."""
    _, low, high = (list(column) for column in zip(*line.bands, strict=True))
    if low != high and statistics.median(b - a for a, b in zip(low, high, strict=True)) < widest:
        style: Style = {"color": line.style.colour, "alpha": opaque, "lw": 0}
        gid = SERIES + line.series
        ax.fill([*line.steps, *line.steps[::-1]], [*low, *high[::-1]], gid=gid, **style)


def _markers(ax: Axes, line: Line, part: float) -> None:
    """The row's marker at its end, and once on its way, elsewhere than those of other rows."""
    scale = ax.xaxis.get_transform()
    left, right = scale.transform(ax.get_xlim())
    where = left + (0.3 + 0.6 * part) * (right - left)
    points = list(zip(line.steps, line.mean, strict=True))
    # a level line has no evaluation on its way
    way = points if not line.level else [(float(scale.inverted().transform(where)), line.mean[0])]
    nearest = min(way, key=lambda p: abs(float(scale.transform(p[0])) - where))
    mark_points(ax, line.series, line.style, *zip(nearest, points[-1], strict=True))
