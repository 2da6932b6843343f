"""Tables as data: columns of cells with what is best of them. Nothing here knows a metric, or draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich.cells import cell_len

from xpo_bench.report.format import clean

LABEL_WIDTH = 40
HEADER_WIDTH = 12
ROWS = 500
"""Rows of a table that a terminal draws; it does not hold more, and the other renderings have all."""
GAP = 2
"""Blank columns between the columns of a table."""
FOLDED = 32
"""Columns of a terminal that a column of running text takes at most, on as many lines as it needs."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its header and one cell per row.

    Args:
        best: which rows are marked; none by default. better: the direction of its metric.
        text: running text, which may take several lines.
    """

    header: str
    cells: Sequence[str]
    best: Sequence[bool] = ()
    better: Literal["higher", "lower"] | None = None
    left: bool = False
    text: bool = False

    @property
    def name(self) -> str:
        """The header on one line, where a metric's name is whole again."""
        return self.header.replace("_\n", "_").replace("\n", " ")

    @cached_property
    def width(self) -> int:
        """Columns of the terminal that the widest cell that is drawn needs, the mark included."""
        widest = max(map(cell_len, (*self.header.split("\n"), *self.marked[:ROWS])))
        return min(widest, FOLDED) if self.text else widest

    @cached_property
    def marked(self) -> list[str]:
        """The cells with `*` behind the best, the others aligned with it."""
        if not any(self.best):
            return list(self.cells)
        return [f"{c}{'*' if b else ' '}" for c, b in zip(self.cells, self.best, strict=True)]


@dataclass(frozen=True)
class Table:
    """A table before it is drawn.

    Args:
        note: what its numbers and marks mean. aside: rows that a part of it does without in which they have
            nothing but blanks and –.
        left_out: how many rows more it would have, if anybody drew them.
        narrow: other drawings of the same numbers for a terminal, the most telling first. It takes the first
            of them that its width holds, and the last anyway. The table itself is for pages, which scroll.
    """

    title: str
    columns: Sequence[Column]
    note: str = ""
    aside: Sequence[int] = ()
    left_out: int = 0
    narrow: Sequence[Table] = ()

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.columns[0].cells)

    @property
    def width(self) -> int:
        """Columns of the terminal that it needs in one piece."""
        return sum(c.width + GAP for c in self.columns) - GAP

    def blocks(self, width: int) -> list[list[Column]]:
        """The columns in as many tables as the width asks for, each beginning with the first column."""
        first, rest = self.columns[0], self.columns[1:]
        blocks: list[list[Column]] = [[first]]
        for column in rest:
            # a column that is wider than the terminal still gets a table of its own
            if len(blocks[-1]) > 1 and Table("", [*blocks[-1], column]).width > width:
                blocks.append([first])
            blocks[-1].append(column)
        return blocks

    def fitting(self, width: int) -> Table:
        """What a terminal of that width draws."""
        return next((t for t in self.narrow if t.width <= width), self.narrow[-1]) if self.narrow else self


def row_label(text: str) -> str:
    """The name of a row, cut where it is very long."""
    name = clean(text)
    return name if len(name) <= LABEL_WIDTH else name[: LABEL_WIDTH - 1] + "…"


def labels(names: Sequence[str], header: str = "") -> Column:
    """The first column of a table: the names of its rows."""
    return Column(header, [row_label(name) for name in names], left=True)


def broken_header(name: str) -> str:
    """A metric's name on as many lines as keep it narrow, broken behind underscores."""
    lines = [""]
    for part in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + part) > HEADER_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
