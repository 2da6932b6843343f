"""Tables as they are drawn: columns with marks, split where the terminal ends; nothing here knows a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from xpo_bench.report.format import ABSENT, clean

LABEL_WIDTH = 40
HEADER_WIDTH = 12
ROWS = 500
"""Rows of a table that are drawn; a terminal does not hold more, and `--json` has all."""
GAP = 2
"""Blank columns between the columns of a table."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its header and one cell per row.

    `values` are what is compared for the best mark, None where a row does not compete; `better` is the
    direction.
    """

    header: str
    cells: Sequence[str]
    values: Sequence[float | None] = ()
    better: Literal["higher", "lower"] | None = None
    left: bool = False

    @cached_property
    def width(self) -> int:
        """Columns of the terminal that the widest cell that is drawn needs, the mark included."""
        return max(map(cell_len, (*self.header.split("\n"), *self.marked[:ROWS])))

    @cached_property
    def best(self) -> list[bool]:
        """Which rows are best: none of fewer than two that compete, nor when all are equal."""
        known = [v for v in self.values if v is not None]
        if self.better is None or len(known) < 2 or min(known) == max(known):
            return [False] * len(self.cells)
        top = max(known) if self.better == "higher" else min(known)
        return [v == top for v in self.values]

    @cached_property
    def marked(self) -> list[str]:
        """The cells with `*` behind the best, the others aligned with it."""
        if not any(self.best):
            return list(self.cells)
        return [f"{c}{'*' if b else ' '}" for c, b in zip(self.cells, self.best, strict=True)]


@dataclass(frozen=True)
class Table:
    """A table before it is drawn.

    `aside`: rows that a part of it does without in which they have nothing but blanks and –.
    """

    title: str
    columns: Sequence[Column]
    note: str = ""
    aside: Sequence[int] = ()


def total_width(columns: Sequence[Column]) -> int:
    """Columns of the terminal that a table of these needs."""
    return sum(c.width + GAP for c in columns) - GAP


def draw(console: Console, title: str, columns: Sequence[Column], aside: Sequence[int] = ()) -> None:
    """The columns under a title, in as many tables as the width asks for.

    Args:
        aside: rows that a table in which they have nothing but blanks and – does without.
    """
    say(console, title, "bold")
    rows = range(min(len(columns[0].cells), ROWS))
    for block in _blocks(columns, console.width):
        table = RichTable(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style=""
        )
        for column in block:
            justify: Literal["left", "right"] = "left" if column.left else "right"
            table.add_column(
                Text(column.header, justify=justify), justify=justify, no_wrap=True, vertical="bottom"
            )
        for i in rows:
            if i in aside and all(c.cells[i] in ("", ABSENT) for c in block[1:]):
                continue
            table.add_row(*(Text(c.marked[i], style="bold" if c.best and c.best[i] else "") for c in block))
        console.print(table)
        console.print()
    if len(columns[0].cells) > ROWS:
        say(console, f"… and {len(columns[0].cells) - ROWS} rows more, which --json has.", "dim")
        console.print()


def _blocks(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as many tables as the width asks for, each beginning with the first column."""
    first, rest = columns[0], list(columns[1:])
    blocks: list[list[Column]] = [[first]]
    for column in rest:
        if len(blocks[-1]) > 1 and total_width([*blocks[-1], column]) > width:
            blocks.append([first])
        blocks[-1].append(column)
    return blocks


def say(console: Console, text: str, style: str = "") -> None:
    """A line of text, nothing in it interpreted."""
    console.print(Text(clean(text), style=style))


def bullet(console: Console, text: str) -> None:
    """A point of a list, indented where it takes several lines."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row(Text("-"), Text(clean(text)))
    console.print(grid)


def row_label(text: str) -> str:
    """The name of a row, cut where it is very long."""
    name = clean(text)
    return name if len(name) <= LABEL_WIDTH else name[: LABEL_WIDTH - 1] + "…"


def broken_header(name: str) -> str:
    """A metric's name on as many lines as keep it narrow, broken behind underscores."""
    lines = [""]
    for part in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + part) > HEADER_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
