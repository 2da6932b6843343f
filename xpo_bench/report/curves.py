"""Curves in the terminal, and what algorithms have earned at equal distances from the reference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from xpo_bench.report.comparison import ROUNDING
from xpo_bench.report.drawing import Column, draw, row_label, say
from xpo_bench.report.format import ABSENT, clean, mean_pm, number
from xpo_bench.report.stats import Estimate, Group, Record, estimate

Rows = Sequence[Mapping[str, Any]]
Curves = Callable[[Record], Rows]

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=^"
WIDTH = 20
SHOWN = ("kl", "rejected_logp")
AT_KL = (0.1, 1.0, 10.0)
EARNED = ("gold_reward", "heldout_reward_accuracy", "reward_accuracy")
"""What is read at equal KL, the first that the curves have."""


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
        " " if v is None or not math.isfinite(v) else blocks[round((v - low) / span * top) if span > 0 else 0] for v in values
    )


def mean_curve(curves: Sequence[Rows], name: str) -> list[float | None]:
    """The mean over seeds of a column at the steps that all curves have; None where one does not know it."""
    by_step = [{row["step"]: row.get(name) for row in rows} for rows in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    out: list[float | None] = []
    for step in steps:
        values = [rows[step] for rows in by_step]
        out.append(None if any(v is None for v in values) else statistics.fmean(v for v in values if v is not None))
    return out


def print_sparks(console: Console, groups: Sequence[Group], curves: Curves) -> None:
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
            drawn[name][1].append(" to ".join(_number(v) for v in dict.fromkeys((known[0], known[-1]))) if known else ABSENT)
    if not labels:
        return
    columns = [Column("", labels, left=True), Column("task", tasks, left=True)]
    for name, (lines, ends) in drawn.items():
        columns += [Column(name, lines, left=True), Column("", ends, left=True)]
    draw(console, "Courses, mean over seeds", columns)


def _number(value: float) -> str:
    return "0" if abs(value) < ROUNDING else number(value, 2)


def at_kl(rows: Rows, name: str, kl: float) -> float | None:
    """A column where the curve's KL first reaches `kl`, linear in KL between two evaluations; None if it never does.

    A curve may cross a KL several times; what is read is how it got there first. Nothing is read beyond the largest KL.
    """
    before: tuple[float, float] | None = None
    for row in rows:
        x, y = row.get("kl"), row.get(name)
        if x is None or y is None:
            continue
        if x >= kl:
            if before is None or x == before[0]:
                return float(y) if x == kl else None
            share = (kl - before[0]) / (x - before[0])
            return float(before[1] + share * (y - before[1]))
        before = (float(x), float(y))
    return None


def equal_kl(g: Group, curves: Curves) -> tuple[str, dict[float, Estimate | None]] | None:
    """What a group has earned at each KL of `AT_KL`, over seeds; None where not every seed gets there. With the column's name."""
    rows = [found for record in g.counted if (found := curves(record))]
    name = next((m for m in EARNED if rows and all(any(row.get(m) is not None for row in r) for r in rows)), None)
    if name is None:
        return None
    out: dict[float, Estimate | None] = {}
    for kl in AT_KL:
        values = [at_kl(r, name, kl) for r in rows]
        out[kl] = None if any(v is None for v in values) else estimate(values)
    return name, out


def print_equal_kl(console: Console, groups: Sequence[Group], curves: Curves) -> None:
    """The read-outs at equal KL, one row per algorithm x task, beside the last value."""
    found = [(g, read) for g in groups if (read := equal_kl(g, curves)) and any(read[1].values())]
    if not found:
        return
    columns = [
        Column("", [row_label(g.label) for g, _ in found], left=True),
        Column("task", [clean(g.task) for g, _ in found], left=True),
        Column("metric", [name for _, (name, _) in found], left=True),
        *(Column(f"at KL {kl:g}", [mean_pm(values[kl]) for _, (_, values) in found]) for kl in AT_KL),
        Column("last", [mean_pm(g.estimate(name)) for g, (name, _) in found]),
        Column("its KL", [mean_pm(g.estimate("kl")) for g, _ in found]),
    ]
    draw(console, "At equal distance from the reference", columns)
    say(
        console,
        "Read where each seed's KL first gets there, between two evaluations; – where one does not. Nothing is extrapolated.",
        "dim",
    )
    console.print()
