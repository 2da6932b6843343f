"""Verdicts and the metrics of every task as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpo_bench.report.items import ItemReader
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.tables.columns import best_rows, preferred
from xpo_bench.report.verdicts.task import Row, TaskVerdict
from xpo_bench.statistics import Estimate

BOARD = (
    "attained_1",
    "attained",
    "frontier_gap",
    "kl",
    "collapsed",
    "rejected_drift",
    "displacement",
    "reward_accuracy",
    "heldout_reward_accuracy",
    "pairs_per_s",
)
"""The metrics of the scoreboard."""


def verdict_documents(verdicts: Sequence[TaskVerdict]) -> list[dict[str, Any]]:
    """One entry per task: its headline, and its rows, best first."""
    return [
        {
            "task": v.task,
            "metric": v.headline.metric,
            "about": v.headline.about,
            "comparisons": v.family,
            "reason": v.reason or None,
            "rows": [_row(row) for row in v.rows],
        }
        for v in verdicts
    ]


def _row(row: Row) -> dict[str, Any]:
    behind, found = row.behind, row.verdict
    return {
        "label": row.group.label,
        "mean": row.mean.mean if row.mean else None,
        "ci95": _interval(row.mean),
        "said": row.said or None,
        "state": row.state,
        "ranks": list(row.ranks) if row.ranks else None,
        "behind_best": None
        if behind is None
        else {
            "difference": behind.mean,
            "ci95": None if behind.half is None else [behind.mean - behind.half, behind.mean + behind.half],
            "n": behind.runs,
            "items": behind.items,
            "p_holm": found.corrected if found else None,
            "verdict": found.word if found else None,
            "seeds_needed": found.runs if found else None,
            "items_needed": found.items if found else None,
        },
    }


def _interval(mean: Estimate | None) -> list[float] | None:
    return list(mean.interval) if mean and mean.interval else None


def board_document(
    groups: Sequence[SeedGroup], verdicts: Sequence[TaskVerdict], items: ItemReader
) -> dict[str, Any]:
    """The scoreboard: a row per algorithm and task on which algorithms are compared.

    A number of a row is {"mean", "ci95", "n", "best"}; `best` is the mark of the tables.

    Args:
        groups: the rows, in their order. items: what the marks of held-out metrics are tested on.
    """
    by_task = {v.task: v for v in verdicts}
    groups = [g for g in groups if g.task in by_task]
    metrics = [m for m in BOARD if any(g.estimate(m) for g in groups)]
    rows: list[dict[str, Any]] = [{"label": g.label, "task": g.task, "metrics": {}} for g in groups]
    for task in dict.fromkeys(g.task for g in groups):
        here = [i for i, g in enumerate(groups) if g.task == task]
        for m in metrics:
            rows_of, verdict = [groups[i] for i in here], by_task[task]
            by_verdict = m == verdict.headline.metric
            marks = verdict.marked(rows_of) if by_verdict else best_rows(rows_of, m, items)
            for i, best in zip(here, marks, strict=True):
                if over := groups[i].estimate(m):
                    found = {"mean": over.mean, "ci95": _interval(over), "n": over.n, "best": best}
                    rows[i]["metrics"][m] = found
    return {"metrics": [{"name": m, "better": preferred(m)} for m in metrics], "rows": rows}
