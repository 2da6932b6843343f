"""A figure as panels: a page shows each as a picture of its own, a file holds them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpo_bench.report.format import clean
from xpo_bench.report.render.labels import Label, place
from xpo_bench.report.render.style import PAGE, LineStyle
from xpo_bench.report.render.svg import inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 3.6, 2.7
"""Of a panel in inches: three stand side by side on a page, and one is legible on a telephone."""
ALONE = (4.2, 3.6)
"""Of a panel that is a figure by itself."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        draw: draws into them and sets their limits; returns the labels of its lines.
        width: inches. height: inches.
    """

    draw: Callable[[Axes], Sequence[Label]]
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True)
class Entry:
    """One line of a legend: the series that it stands for, what it is called, and how it is drawn."""

    series: str
    label: str
    style: LineStyle


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn: its panels, their common legend, and how many stand in a row of a file."""

    panels: Sequence[Panel]
    legend: Sequence[Entry] = ()
    columns: int = 3


@dataclass(frozen=True)
class Chart:
    """A figure of the page: pictures, their legend, what they show, and their numbers as CSV."""

    plots: Sequence[str]
    legend: Sequence[Entry]
    caption: str
    data: str


class Studio:
    """Draws the figures of one page, numbering their pictures."""

    def __init__(self) -> None:
        self.drawn = 0

    def chart(self, drawing: Drawing, caption: str, data: str) -> Chart:
        """Draw every panel under the page's style."""
        import matplotlib

        plots = []
        with matplotlib.rc_context(PAGE):
            for panel in drawing.panels:
                self.drawn += 1
                plots.append(inline(draw([panel], 1), f"f{self.drawn}-", caption))
        return Chart(plots, [e for e in drawing.legend if e.label], clean(caption), data)


def whole(drawing: Drawing) -> Figure:
    """All panels and the legend as one figure, for a file."""
    return draw(drawing.panels, drawing.columns, drawing.legend)


def draw(panels: Sequence[Panel], columns: int, legend: Sequence[Entry] = ()) -> Figure:
    """Panels in rows of that many, the legend below; labels come last, since they need the axes' places."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = max(p.width for p in panels) * columns, max(p.height for p in panels) * rows
    lines = math.ceil(len(legend) / (per := max(1, int(width / 2))))
    figure = Figure(figsize=(width, height + 0.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    labels = [panel.draw(ax) for panel, ax in zip(panels, axes, strict=False)]
    for ax in axes[len(panels) :]:
        ax.remove()
    if legend:
        figure.legend(
            handles=list(map(handle, legend)), loc="outside lower left", ncols=per, handlelength=3.4
        )
    _lay_out(figure)
    for ax, of in zip(axes, labels, strict=False):
        place(ax, of)
    _lay_out(figure)  # labels in the margin take room of the axes
    figure.set_layout_engine(None)  # a figure that still had one would be drawn twice
    return figure


def _lay_out(figure: Figure) -> None:
    """Give the axes their places."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)


def handle(entry: Entry) -> Line2D:
    """A line of the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **(entry.style.mark | entry.style.line), label=entry.label)
