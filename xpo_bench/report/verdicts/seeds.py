"""How many seeds would separate algorithms, at the spread that was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpo_bench.report.format import ABSENT, mean_pm, number
from xpo_bench.report.table import Column, Table, labels
from xpo_bench.report.verdicts.task import Row, TaskVerdict
from xpo_bench.statistics import ALPHA, Estimate
from xpo_bench.verdicts.differences import PairedDifference
from xpo_bench.verdicts.words import MOST_RUNS, POWER, power, runs_needed

NOTE = (
    "Spread: standard deviation of the paired differences over seeds. Seeds: the fewest with which a paired "
    f"t-test of two algorithms at {ALPHA:g} finds a difference of the size seen with {POWER:.0%} power; "
    f"corrected: at {ALPHA:g} over the number of pairs of the task. – where it takes more than {MOST_RUNS}, "
    "where nothing random was seen, or where held-out items decide and not seeds."
)


def seeds_table(verdicts: Sequence[TaskVerdict]) -> Table | None:
    """Every compared algorithm against the best of its task; None where nothing was compared."""
    rows = [(v, row, row.behind) for v in verdicts for row in v.ranked if row.behind is not None]
    if not rows:
        return None
    columns = [
        labels([row.group.label for _, row, _ in rows]),
        labels([v.ranked[0].group.label for v, _, _ in rows], "against"),
        labels([v.task for v, _, _ in rows], "task"),
        Column("difference", [mean_pm(Estimate(d.mean, d.half, d.runs)) for _, _, d in rows]),
        Column("spread", [number(deviation(d)) for _, _, d in rows]),
        Column("power\nnow", [_power(d) for _, _, d in rows]),
        Column("seeds", [_told(_seeds(d)) for _, _, d in rows]),
        Column("seeds,\ncorrected", [_told(_seeds(d, v.family)) for v, _, d in rows]),
    ]
    return Table("How many seeds", columns, NOTE)


def seeds_documents(verdicts: Sequence[TaskVerdict]) -> list[dict[str, object]]:
    """The same for JSON."""
    return [_document(v, row, row.behind) for v in verdicts for row in v.ranked if row.behind is not None]


def _document(v: TaskVerdict, row: Row, d: PairedDifference) -> dict[str, object]:
    return {
        "label": row.group.label,
        "against": v.ranked[0].group.label,
        "task": v.task,
        "metric": v.headline.metric,
        "difference": d.mean,
        "spread": deviation(d),
        "seeds": _seeds(d),
        "seeds_corrected": _seeds(d, v.family),
    }


def deviation(d: PairedDifference) -> float | None:
    """Standard deviation of the differences over runs; None from a single run."""
    return None if d.of_runs is None or d.runs < 2 else math.sqrt(max(d.of_runs, 0.0) * d.runs)


def _seeds(d: PairedDifference, family: int = 1) -> int | None:
    """How many seeds it takes with so many comparisons; None where seeds do not decide."""
    spread = deviation(d)
    if not spread or d.of_items > (d.of_runs or 0.0):
        return None
    return runs_needed(d.mean, spread, ALPHA / max(family, 1))


def _told(needed: int | None) -> str:
    return str(needed) if needed else ABSENT


def _power(d: PairedDifference) -> str:
    spread = deviation(d)
    return ABSENT if not spread or d.items else f"{power(d.mean, spread, d.runs):.0%}"
