"""What `--target-kl` found: for every algorithm the value of its regulariser, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from xpo_bench.report.format import ABSENT, clean, number
from xpo_bench.report.records import Target
from xpo_bench.report.table import Column, Table, labels


def target_tables(targets: Sequence[Target]) -> list[Table]:
    """The values found, of the algorithms that reach the target."""
    reached = [t for t in targets if t["value"] is not None]
    if not reached:
        return []
    columns = [
        labels([t["algorithm"] for t in reached]),
        labels([t["task"] for t in reached], "task"),
        Column("regulariser", [clean(t["field"] or ABSENT) for t in reached], left=True),
        Column("value", [number(t["value"], 4) for t in reached]),
        Column("KL", [number(t["kl"]) for t in reached]),
    ]
    return [Table("Regularisers at the target KL", columns)]


def target_lines(targets: Sequence[Target]) -> list[str]:
    """A line for every algorithm that does not reach the target, or of whose value there is more to know."""
    return [f"{t['algorithm']} on {t['task']}: {t['reason']}" for t in targets if t["reason"]]
