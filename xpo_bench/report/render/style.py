"""How every figure looks: colours, dashes and markers, the same for a row in all figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xpo_bench.report.format import clean
from xpo_bench.report.render.svg import inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Distinguishable under the common kinds of colour blindness (Okabe and Ito 2008), without its yellow."""
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")
DASHES = ("", "5 2.5", "1.5 2")
"""`LINES` as SVG spells them."""
GREY = "#9a9a9a"
Style = dict[str, Any]
"""Keyword arguments of matplotlib, which has no narrower type for them; its rc parameters have hundreds."""
STYLE: Any = {
    "svg.hashsalt": "xpo-bench",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}
PAGE: Any = STYLE | {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
}
"""Of figures within a page: its ground shows through, and text stays text."""


@dataclass(frozen=True)
class Entry:
    """One line of a legend: what `data-s` of the figure's parts it stands for, and how they are drawn."""

    index: int
    label: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Chart:
    """A figure of the page: SVG, its legend, and what it shows."""

    svg: str
    legend: Sequence[Entry]
    caption: str


@dataclass(frozen=True)
class LineStyles:
    """How every row of a report is drawn: six colours, then other dashes and markers."""

    names: Sequence[str]

    @classmethod
    def of(cls, names: Iterable[str]) -> LineStyles:
        """For rows in the order in which they stand."""
        return cls(list(dict.fromkeys(names)))

    def _turn(self, name: str) -> int:
        """How often all colours were used before this row."""
        return self.names.index(name) // 6 % len(LINES)

    def colour(self, name: str) -> str:
        """The colour of a row."""
        return COLOURS[self.names.index(name) % 6]

    def line(self, name: str) -> Style:
        """Colour and dashes of a row."""
        return {"color": self.colour(name), "ls": LINES[self._turn(name)]}

    def marker(self, name: str) -> str:
        """The marker of a row."""
        return MARKERS[self._turn(name)]

    def entry(self, name: str, index: int) -> Entry:
        """The line of a legend for the row that is the figure's `index`-th."""
        return Entry(index, clean(name), self.colour(name), DASHES[self._turn(name)])


class Studio:
    """Draws the figures of one page, numbering them."""

    def __init__(self) -> None:
        self.drawn = 0

    def chart(
        self, draw: Callable[[], Figure | None], caption: str, legend: Sequence[Entry] = ()
    ) -> Chart | None:
        """Draw under the page's style; None when there is nothing to draw."""
        import matplotlib

        with matplotlib.rc_context(PAGE):
            figure = draw()
            if figure is None:
                return None
            self.drawn += 1
            return Chart(inline(figure, f"f{self.drawn}-", caption), legend, caption)


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def line_style(i: int) -> Style:
    """The i-th of 18 ways to draw a line: six colours, then hollow markers and other dashes."""
    colour, turn = COLOURS[i % 6], i // 6
    return {
        "color": colour,
        "ls": LINES[turn % 3],
        "marker": MARKERS[(i + 3 * turn) % 7],
        "mfc": "white" if turn % 2 else colour,
    }
