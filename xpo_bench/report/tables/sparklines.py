"""Curves in the terminal: a line of blocks per algorithm and task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from xpo_bench.report.format import ABSENT, clean, number
from xpo_bench.report.runs import Record, SeedGroup
from xpo_bench.report.table import Column, draw, row_label
from xpo_bench.statistics import ROUNDING

Rows = Sequence[Mapping[str, Any]]
Curves = Callable[[Record], Rows]

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=^"
WIDTH = 20
SHOWN = ("kl", "rejected_logp")


def spark(values: Sequence[float | None], width: int = WIDTH, blocks: str = BLOCKS) -> str:
    """A curve as a line of blocks: its values, which may have gaps, drawn between its own lowest and highest.

    Args:
        width: characters at most; longer curves are thinned, the last point kept.
    """
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    top = len(blocks) - 1
    return "".join(
        " " if v is None or not math.isfinite(v) else blocks[round((v - low) / span * top) if span > 0 else 0]
        for v in values
    )


def mean_curve(curves: Sequence[Rows], name: str) -> list[float | None]:
    """The mean over seeds of a column at the steps that all curves have; None where one does not know it."""
    by_step = [{row["step"]: row.get(name) for row in rows} for rows in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    out: list[float | None] = []
    for step in steps:
        values = [rows[step] for rows in by_step]
        out.append(
            None if any(v is None for v in values) else statistics.fmean(v for v in values if v is not None)
        )
    return out


def print_sparks(console: Console, groups: Sequence[SeedGroup], curves: Curves) -> None:
    """A line per algorithm x task: the courses of `SHOWN`, from step 0 to the end."""
    blocks = BLOCKS if (console.encoding or "").lower().replace("-", "").startswith("utf") else PLAIN
    labels: list[str] = []
    tasks: list[str] = []
    drawn: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in SHOWN}
    for g in groups:
        rows = [found for record in g.counted if (found := curves(record))]
        courses = {name: mean_curve(rows, name) for name in SHOWN}
        if not any(v is not None for course in courses.values() for v in course):
            continue
        labels.append(row_label(g.label))
        tasks.append(clean(g.task))
        for name, course in courses.items():
            known = [v for v in course if v is not None]
            drawn[name][0].append(spark(course, blocks=blocks) if len(known) > 1 else "")
            drawn[name][1].append(
                " to ".join(_number(v) for v in dict.fromkeys((known[0], known[-1]))) if known else ABSENT
            )
    if not labels:
        return
    columns = [Column("", labels, left=True), Column("task", tasks, left=True)]
    for name, (lines, ends) in drawn.items():
        columns += [Column(name, lines, left=True), Column(f"{name}\nfirst to last", ends, left=True)]
    draw(console, "Courses, mean over seeds", columns)


def _number(value: float) -> str:
    return "0" if abs(value) < ROUNDING else number(value, 2)
