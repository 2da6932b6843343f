"""How every figure looks: one colour and one marker per algorithm, dashes that tell its rows apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpo_bench.report.runs import SeedGroup

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6a3d9a", "#8c5a2b")
"""Six that are distinguishable under the common kinds of colour blindness (Okabe and Ito 2008, without yellow
and black), and two more."""
MARKERS = "osD^vPX*"
LARGER = {"P": 6.5, "X": 6.5, "*": 8.0}
"""Sizes in points of markers that look smaller than the others, which have 5."""
SHAPES: Mapping[str, str] = {
    "o": "M8 4a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M8.2 1.2h5.6v5.6h-5.6z",
    "D": "M11 .4L14.6 4L11 7.6L7.4 4z",
    "^": "M11 .8L14.4 7H7.6z",
    "v": "M11 7.2L14.4 1H7.6z",
    "P": "M9.8 .5h2.4v2.3h2.3v2.4h-2.3v2.3h-2.4v-2.3h-2.3v-2.4h2.3z",
    "X": "M7.6 2.3L9.3 .6L11 2.3L12.7 .6L14.4 2.3L12.7 4L14.4 5.7L12.7 7.4L11 5.7L9.3 7.4L7.6 5.7L9.3 4z",
    "*": "M11 0L12 2.8H15L12.6 4.6L13.5 7.6L11 5.8L8.5 7.6L9.4 4.6L7 2.8H10z",
}
"""The markers as paths of SVG about (11, 4), for a page's legend."""
PATTERNS: tuple[tuple[float, ...], ...] = (
    (),
    (4.5, 2),
    (1.2, 1.6),
    (6, 1.6, 1.2, 1.6),
    (9, 2),
    (6, 1.6, 1.2, 1.6, 1.2, 1.6),
)
"""Lengths of dashes and gaps in line widths; the first is a line without gaps."""
GREY = "#9a9a9a"
INK = "#000000"
"""Of what belongs to no algorithm; a page replaces it by the colour of its text."""
SPEAKING = 8
"""Lines of a chart that have a colour, a label and an entry of the legend; the others are grey."""
OTHERS = "others"
"""The series of all rows that are drawn in grey."""
Style = dict[str, Any]
"""Keyword arguments of matplotlib, which has no narrower type for them; its rc parameters have hundreds."""
STYLE: Any = {
    "svg.hashsalt": "xpo-bench",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}
PAGE: Any = STYLE | {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
}
"""Of figures within a page: its ground shows through, and text stays text."""


@dataclass(frozen=True)
class LineStyle:
    """How one line is drawn: colour, dashes and marker; no marker where it is empty."""

    colour: str
    marker: str = ""
    pattern: tuple[float, ...] = ()
    width: float = 1.4

    @property
    def line(self) -> Style:
        """Colour, dashes and width."""
        return {"color": self.colour, "ls": (0, self.pattern) if self.pattern else "-", "lw": self.width}

    @property
    def mark(self) -> Style:
        """Its marker; without one there is nothing to see."""
        size = LARGER.get(self.marker, 5.0)
        return {"color": self.colour, "marker": self.marker or "None", "ms": size, "mew": 0}

    @property
    def dashes(self) -> str:
        """The dashes as SVG spells them, in pixels of a legend."""
        return " ".join(f"{1.5 * part:g}" for part in self.pattern)

    @property
    def shape(self) -> str:
        """The marker as a path of SVG."""
        return SHAPES.get(self.marker, "")


BACKGROUND = LineStyle(GREY, width=0.7)
"""Of rows beyond the eight that speak."""
LEVEL = LineStyle(INK, pattern=PATTERNS[2], width=1)
GUIDE = LineStyle(GREY, pattern=PATTERNS[3], width=1)
FRONTIER = LineStyle(INK, width=2.4)


@dataclass(frozen=True)
class LineStyles:
    """How the algorithms and rows of a report are drawn, the same in all of its charts.

    Args:
        algorithms: name -> the style of its first line. rows: label of a row -> its algorithm, and how many
            rows of that stand before it.
    """

    algorithms: Mapping[str, LineStyle]
    rows: Mapping[str, tuple[str, int]]

    @classmethod
    def of(
        cls, charts: Iterable[Sequence[str]], rest: Iterable[str] = (), groups: Iterable[SeedGroup] = ()
    ) -> LineStyles:
        """For the algorithms that speak in each chart, then the rest, and for the rows of tables.

        Algorithms of one chart differ in colour and marker as far as there are as many.
        """
        groups = list(groups)
        cliques = [list(dict.fromkeys(names)) for names in charts]
        order = dict.fromkeys(
            name for names in [*cliques, list(rest), [g.algorithm for g in groups]] for name in names
        )
        styles: dict[str, LineStyle] = {}
        for i, name in enumerate(order):
            near = [styles[other] for c in cliques if name in c for other in c if other in styles]
            colour = _free(COLOURS, [s.colour for s in near], [s.colour for s in styles.values()])
            # two of one colour in different charts have different markers all the same
            same = [s.marker for s in styles.values() if s.colour == colour]
            marker = _free(MARKERS, [s.marker for s in near] + same, [s.marker for s in styles.values()])
            styles[name] = LineStyle(colour, marker, PATTERNS[i // 4 % len(PATTERNS)])
        return cls(styles, _places(groups))

    def algorithm(self, name: str, turn: int = 0) -> LineStyle:
        """The style of an algorithm's `turn`-th line: colour and marker are the algorithm's own."""
        first = self.algorithms[name]
        return replace(first, pattern=PATTERNS[(PATTERNS.index(first.pattern) + turn) % len(PATTERNS)])

    def row(self, label: str) -> LineStyle:
        """The style of a row of the report's tables."""
        return self.algorithm(*self.rows[label])


def _free(choices: Sequence[str], near: Sequence[str], used: Sequence[str]) -> str:
    """The first of the choices that nothing near has and that is used least."""
    return min(choices, key=lambda choice: (near.count(choice), used.count(choice)))


def _places(groups: Iterable[SeedGroup]) -> dict[str, tuple[str, int]]:
    """Label of a row -> its algorithm, and how many other rows of that come before it."""
    labels: dict[str, list[str]] = {}
    out: dict[str, tuple[str, int]] = {}
    for g in groups:
        if g.label not in out:
            same = labels.setdefault(g.algorithm, [])
            out[g.label] = (g.algorithm, len(same))
            same.append(g.label)
    return out
