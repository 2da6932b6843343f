"""Tables and lines on a terminal, split where its width ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from xpo_bench.report import table as tables
from xpo_bench.report.format import ABSENT, clean
from xpo_bench.report.table import GAP, Column, Table


def draw(console: Console, title: str, columns: Sequence[Column], aside: Sequence[int] = ()) -> None:
    """The columns under a title, in as many tables as the width asks for."""
    draw_table(console, Table(title, columns, aside=aside))


def draw_table(console: Console, table: Table) -> None:
    """A table with its title above and its note beneath."""
    table = table.fitting(console.width)
    say(console, table.title, "bold")
    for block in table.blocks(console.width):
        console.print(_block(block, range(min(table.rows, tables.ROWS)), table.aside))
        console.print()
    if (more := table.rows + table.left_out - tables.ROWS) > 0:
        say(console, f"… and {more} rows more, which --json has.", "dim")
        console.print()
    if table.note:
        say(console, table.note, "dim")
        console.print()


def _block(columns: Sequence[Column], rows: Sequence[int], aside: Sequence[int]) -> RichTable:
    out = RichTable(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style=""
    )
    running = any(column.text for column in columns)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.left else "right"
        out.add_column(
            Text(column.header, justify=justify),
            justify=justify,
            no_wrap=not column.text,
            overflow="fold" if column.text else "ellipsis",
            vertical="top" if running else "bottom",
        )
    for i in rows:
        if i not in aside or any(c.cells[i] not in ("", ABSENT) for c in columns[1:]):
            out.add_row(*(Text(c.marked[i], style="bold" if c.best and c.best[i] else "") for c in columns))
    return out


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
