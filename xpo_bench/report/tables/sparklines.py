"""Curves where nothing can be drawn but text: a line of blocks per algorithm and task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpo_bench.report.curves import Curves, mean_curve
from xpo_bench.report.format import ABSENT, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, labels
from xpo_bench.statistics import ROUNDING

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=^"
"""Of a terminal whose encoding has no blocks."""
WIDTH = 20
SHOWN = ("kl", "rejected_logp")


def spark(values: Sequence[float | None], width: int = WIDTH, blocks: str = BLOCKS) -> str:
    """A curve as a line of blocks: its values, which may have gaps, drawn between its own lowest and highest.

    Args:
        width: characters at most; longer curves are thinned, the last point kept.
    """
    if len(values) > width:
        # of evaluations, not of steps: they lie at 1, 2, 5, 10, ... and at every twentieth of the run
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


def spark_tables(groups: Sequence[SeedGroup], curves: Curves, blocks: str = BLOCKS) -> list[Table]:
    """A line per algorithm x task: the curves of `SHOWN`, from step 0 to the end."""
    drawn: list[tuple[SeedGroup, dict[str, list[float | None]]]] = []
    for g in groups:
        points = [of_seed for record in g.counted if (of_seed := curves(record.key))]
        means = {name: mean_curve(points, name) for name in SHOWN}
        if any(v is not None for curve in means.values() for v in curve):
            drawn.append((g, means))
    if not drawn:
        return []
    columns = [labels([g.label for g, _ in drawn]), labels([g.task for g, _ in drawn], "task")]
    for name in SHOWN:
        known = [[v for v in means[name] if v is not None] for _, means in drawn]
        lines = [
            spark(means[name], blocks=blocks) if len(values) > 1 else ""
            for (_, means), values in zip(drawn, known, strict=True)
        ]
        columns += [
            Column(name, lines, left=True),
            Column(f"{name}\nfirst to last", [_ends(values) for values in known], left=True),
        ]
    return [Table("Curves, mean over seeds", columns)]


def _ends(values: Sequence[float]) -> str:
    """The first value and the last; once where they are the same."""
    ends = dict.fromkeys((values[0], values[-1])) if values else ()
    return " to ".join(map(_number, ends)) or ABSENT


def _number(value: float) -> str:
    return "0" if abs(value) < ROUNDING else number(value, 2)
