"""What the article's experiments share: rows that were measured, how they become tables, and their figures.

A row is a dictionary of numbers and texts; the same rows are printed as tables, written as CSV and drawn as
figures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xpo_bench.report.curves import Curves, Points
from xpo_bench.report.format import clean, number
from xpo_bench.report.records import Record
from xpo_bench.report.runs import group
from xpo_bench.report.table import Column, Table

if TYPE_CHECKING:
    from xpo_bench.report.render.drawing import Drawing
    from xpo_bench.report.render.style import LineStyles

Row = dict[str, Any]
Data = dict[str, list[Row]]
"""Name of the rows, which is that of their CSV -> rows."""
HEADER_WIDTH = 12


@dataclass(frozen=True)
class Plot:
    """A figure of an experiment.

    Args:
        caption: what it compares, of these rows. data: names of the rows that it shows; without the first of
            them there is no figure. speaking: the algorithms that speak in it.
    """

    draw: Callable[[Data, LineStyles], Drawing]
    caption: Callable[[Data], str]
    data: Sequence[str]
    speaking: Callable[[Data], Sequence[str]]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the article.

    Args:
        tasks: whose cells belong to it. measure: cells and curves -> named rows, for tables, CSV and figures.
        tables: heading -> rows of what is printed. findings: the rows in sentences.
        figures: file name -> the figure.
    """

    name: str
    title: str
    tasks: frozenset[str]
    measure: Callable[[Sequence[Record], Curves], Data]
    tables: Mapping[str, Callable[[Data], list[Row]]]
    findings: Callable[[Data], list[str]]
    figures: Mapping[str, Plot]

    def data(self, cells: Sequence[Record], curves: Curves) -> Data:
        """Its rows, in the order of tasks, algorithms and settings whatever that of the cells."""
        return self.measure([r for g in group(cells) for r in g.records], curves)

    def shown(self, data: Data) -> list[Table]:
        """Its tables; one without a row is left out."""
        return [
            Table(heading, columns(rows)) for heading, table in self.tables.items() if (rows := table(data))
        ]


def columns(rows: Sequence[Row]) -> list[Column]:
    """Rows as columns of a table; a column without any value is left out."""
    out = []
    for header in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(header) for row in rows]
        if all(v is None for v in values):
            continue
        cells = [
            clean(v) if isinstance(v, str) else f"{v}" if isinstance(v, int) else number(v) for v in values
        ]
        broken = header.replace(" ", "\n", 1) if len(header) > HEADER_WIDTH else header
        out.append(Column(broken, cells, left=any(isinstance(v, str) for v in values)))
    return out


def rows_of(name: str) -> Callable[[Data], list[Row]]:
    """A table of rows as they were measured."""
    return lambda data: data[name]


def gathered(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows gathered by the values of some columns, in order of appearance."""
    out: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in names), []).append(row)
    return out


def column(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of one column."""
    return [row[name] for row in rows]


def algorithms_of(name: str) -> Callable[[Data], list[str]]:
    """The algorithms of some rows, in order of appearance, without what a label adds to their names."""
    return lambda data: list(dict.fromkeys(r["algorithm"].split()[0] for r in data[name]))


def named(name: str, value: float) -> str:
    """`dpo (0.5)`."""
    return f"{name} ({number(value)})"


def rejected_points(points: Points) -> Points:
    """The evaluations that know the probability of the rejected completion."""
    return [p for p in points if p.get("rejected_prob") is not None]


def margins(points: Points) -> list[tuple[float, float]]:
    """(margin summed over tokens, tokens) at every point of the curve of one pair, nats."""
    first = points[0]
    # rejected_prob is the geometric mean over n tokens: ln of it is rejected_logp / n
    length = first["rejected_logp"] / math.log(first["rejected_prob"])
    return [
        ((p["chosen_logp"] - first["chosen_logp"]) - (p["rejected_logp"] - first["rejected_logp"]), length)
        for p in points
    ]


def sigma(x: float) -> float:
    """The logistic function; 0 where exp would overflow."""
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the least-squares line; None where `x` does not vary."""
    if len(x) < 2 or max(x) == min(x):
        return None
    return statistics.linear_regression(x, y).slope
