"""The numbers of a figure as CSV, which stands beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xpo_bench.report.curves import Series
from xpo_bench.report.format import clean
from xpo_bench.statistics import Estimate

DIGITS = 5
"""Of a mean: more than any chart shows."""
Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Block:
    """The numbers of one panel, or of one kind of line: a title, names of columns, and rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def csv_of(blocks: Iterable[Block]) -> str:
    """Blocks with a line between them, each below its title, which stands behind `#`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for block in blocks:
        if block.rows:
            out.write("\n" * bool(out.tell()) + f"# {clean(block.title)}\n")
            writer.writerow(block.header)
            writer.writerows([_text(cell) for cell in row] for row in block.rows)
    return out.getvalue()


def of_series(title: str, lines: Mapping[str, Series]) -> Block:
    """A row per step; per line its mean and, where one is known, half its interval."""
    known = {name: points for name, points in lines.items() if points}
    with_interval = {
        name for name, points in known.items() if any(low != high for _, low, high in points.values())
    }
    header = ["step", *(part for n in known for part in ([n, f"{n} ±"] if n in with_interval else [n]))]
    rows: list[list[Cell]] = []
    for step in sorted({step for points in known.values() for step in points}):
        row: list[Cell] = [step]
        for name, points in known.items():
            mean, _, high = points.get(step, (None, None, None))
            row.append(mean)
            if name in with_interval:
                row.append(None if mean is None or high is None else _short(high - mean))
        rows.append(row)
    return Block(title, header, rows)


def of_estimates(
    title: str, names: Sequence[str], rows: Iterable[tuple[Sequence[Cell], Estimate | None]]
) -> Block:
    """A row per estimate: what it is of, its mean, and half its interval."""
    known = [(key, e) for key, e in rows if e is not None]
    return Block(title, [*names, "mean", "±"], [[*key, e.mean, _short(e.half)] for key, e in known])


def of_rows(title: str, rows: Sequence[Mapping[str, Cell]]) -> Block:
    """Rows of an experiment."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    return Block(title, header, [[row.get(name) for name in header] for row in rows])


def _short(half: float | None) -> str | None:
    return None if half is None else f"{half:.2g}"


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.{DIGITS}g}" if isinstance(cell, float) else clean(cell)
