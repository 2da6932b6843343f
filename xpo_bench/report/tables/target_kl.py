"""What `--target-kl` found: for every algorithm the value of its regulariser, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from xpo_bench.report.format import ABSENT, number
from xpo_bench.report.table import Column, bullet, draw, row_label, say


def print_targets(console: Console, targets: Sequence[Mapping[str, Any]]) -> None:
    """A table of the values found, and a line for every algorithm without one.

    Args:
        targets: {algorithm, task, field, value, kl, reason}; `value` is None where the target was not
            reached.
    """
    reached = [t for t in targets if t["value"] is not None]
    if reached:
        columns = [
            Column("", [row_label(t["algorithm"]) for t in reached], left=True),
            Column("task", [row_label(t["task"]) for t in reached], left=True),
            Column("regulariser", [t["field"] or ABSENT for t in reached], left=True),
            Column("value", [number(t["value"], 4) for t in reached]),
            Column("KL", [number(t["kl"]) for t in reached]),
        ]
        draw(console, "Regularisers at the target KL", columns)
    lines = [f"{t['algorithm']} on {t['task']}: {t['reason']}" for t in targets if t["reason"]]
    if lines:
        say(console, "Of the target", "bold")
        for line in lines:
            bullet(console, line)
