"""The scoreboard: all algorithms of a run beside each other, over all its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from xpo_bench.report.format import clean, mean_pm, narrow
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, broken_header, labels
from xpo_bench.report.tables.columns import competes, direction, metric_column, preferred, shares_a_clock
from xpo_bench.statistics import Estimate, estimate

HEADLINE = {
    "frontier_gap": ("gap", "gap"),
    "kl": ("KL", "KL"),
    "collapsed": ("collapsed", "coll."),
    "rejected_drift": ("drift", "drift"),
    "displacement": ("displacement", "displ."),
    "reward_accuracy": ("accuracy", "acc."),
    "heldout_reward_accuracy": ("held-out\naccuracy", "held"),
    "pairs_per_s": ("pairs/s", "pairs/s"),
}
"""The metrics of the scoreboard and their short headers, spelled out and abbreviated for narrow terminals."""
SPELLED, ABBREVIATED = 0, 1
EXTREME: Mapping[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "kl": ("largest", max),
    "rejected_drift": ("lowest", min),
    "displacement": ("lowest", min),
    "pairs_per_s": ("slowest", min),
}
"""Metrics without a common scale: over several tasks the scoreboard shows one task's number, never a mean."""
PARTIAL = "°"
"""Behind a number without one of the tasks, which is never best."""


@dataclass(frozen=True)
class Board:
    """The groups of a run by row and task.

    Over several tasks a fraction or a reward is the mean over the tasks that have it; the metrics of
    `EXTREME` have no common scale and show one of the tasks.
    """

    groups: Sequence[SeedGroup]

    @cached_property
    def rows(self) -> list[str]:
        """Labels of the rows."""
        return list(dict.fromkeys(g.label for g in self.groups))

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the groups."""
        return list(dict.fromkeys(g.task for g in self.groups))

    @cached_property
    def place(self) -> dict[tuple[str, str], SeedGroup]:
        """(row, task) -> its group."""
        return {(g.label, g.task): g for g in self.groups}

    @cached_property
    def over(self) -> dict[str, list[str]]:
        """Every metric that some group has -> the tasks that have it."""
        having = {
            m: [t for t in self.tasks if any(g.task == t and g.estimate(m) for g in self.groups)]
            for m in HEADLINE
        }
        return {m: tasks for m, tasks in having.items() if tasks}

    def having(self, row: str, metric: str) -> list[SeedGroup]:
        """The groups of a row that have a metric."""
        there = (self.place.get((row, task)) for task in self.over[metric])
        return [g for g in there if g and g.estimate(metric)]

    def column(self, metric: str, header: int | None = None) -> Column:
        """One metric over its tasks, in full, or in plain figures under one of its short headers."""
        cells, values = [], []
        for row in self.rows:
            groups = self.having(row, metric)
            over = _aggregate(metric, groups)
            partial = len(groups) < len(self.over[metric])
            text = mean_pm(over) if header is None else narrow(over.mean if over else None)
            cells.append(text + (PARTIAL if over and partial else ""))
            # who lacks a task would win or lose by not having run it
            values.append(over.mean if over and not partial and all(map(competes, groups)) else None)
        shown = [g for (_, task), g in self.place.items() if task in self.over[metric]]
        name = broken_header(metric) if header is None else HEADLINE[metric][header]
        return Column(name, cells, values, direction(metric, shown))

    def told(self, metric: str) -> str:
        """Over which tasks a number is, and how."""
        tasks = self.over[metric]
        if len(self.tasks) == 1:
            return ""
        if len(tasks) == 1:
            return f"on {clean(tasks[0])}"
        which = f"all {len(tasks)} tasks" if len(tasks) == len(self.tasks) else ", ".join(map(clean, tasks))
        return f"{_how(metric)} of {which}"


def scoreboard(groups: Sequence[SeedGroup]) -> Table:
    """Algorithms x headline metrics over all tasks, with whole names and intervals.

    A terminal draws it task by task where that fits, else as it is, else in plain figures under short
    headers.
    """
    board = Board(groups)
    full = _over_tasks(board)
    by_task = [_by_task(board, header) for header in (SPELLED, ABBREVIATED)] if len(board.tasks) > 1 else []
    return replace(
        full, narrow=[*by_task, full, _over_tasks(board, SPELLED), _over_tasks(board, ABBREVIATED)]
    )


def _over_tasks(board: Board, header: int | None = None) -> Table:
    """A column per metric."""
    title = f"Scoreboard over {', '.join(map(clean, board.tasks))}" if len(board.tasks) > 1 else "Scoreboard"
    columns = [board.column(m, header) for m in board.over]
    partial = any(PARTIAL in cell for column in columns for cell in column.cells)
    said = {m: board.told(m) for m in board.over}
    return Table(title, [labels(board.rows), *columns], _legend(board, said, header, partial))


def _by_task(board: Board, header: int) -> Table:
    """A column per task and metric, in plain figures."""
    columns = [
        metric_column(
            f"{clean(task)}\n{HEADLINE[m][header]}",
            m,
            [board.place.get((row, task)) for row in board.rows],
            True,
        )
        for task in board.tasks
        for m in board.over
        if task in board.over[m]
    ]
    legend = _legend(board, dict.fromkeys(board.over, ""), header, partial=False)
    return Table("Scoreboard by task", [labels(board.rows), *columns], legend)


def board_document(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """The scoreboard as JSON: `metrics` with the tasks each is over and how, and a row per algorithm.

    A number of a row is {"mean", "ci95", "n", "tasks", "best"}; `best` where it would be marked.
    """
    board = Board(groups)
    metrics: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = [{"label": row, "metrics": {}} for row in board.rows]
    for name, tasks in board.over.items():
        column = board.column(name)
        metrics.append({"name": name, "tasks": tasks, "over_tasks": _how(name), "better": column.better})
        for row, best in zip(rows, column.best, strict=True):
            having = board.having(row["label"], name)
            if over := _aggregate(name, having):
                row["metrics"][name] = {
                    "mean": over.mean,
                    "ci95": list(over.interval) if over.interval else None,
                    "n": over.n,
                    "tasks": len(having),
                    "best": best,
                }
    return {"metrics": metrics, "rows": rows}


def _how(metric: str) -> str:
    return EXTREME[metric][0] if metric in EXTREME else "mean"


def _aggregate(metric: str, groups: Sequence[SeedGroup]) -> Estimate | None:
    """One number of a row over its tasks: their mean with its interval over seeds, or the worst of them."""
    means = [e for g in groups if (e := g.estimate(metric))]
    if len(means) < 2:
        return means[0] if means else None
    if metric in EXTREME:
        # the KL of a world of six actions and that of a language model have no mean: the worst task is told
        extreme = EXTREME[metric][1]([e.mean for e in means])
        return next(e for e in means if e.mean == extreme)
    mean = sum(e.mean for e in means) / len(means)
    by_seed = [g.values(metric) for g in groups]
    if any(set(values) != set(by_seed[0]) for values in by_seed):
        return Estimate(mean, None, min(e.n for e in means))  # seeds differ: no paired interval
    # tasks of one seed are averaged before the spread is taken, since they share what the seed decides
    over_seeds = estimate(_mean([values[seed] for values in by_seed]) for seed in by_seed[0])
    return replace(over_seeds, mean=mean) if over_seeds else Estimate(mean, None, 1)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _legend(board: Board, said: Mapping[str, str], header: int | None, partial: bool) -> str:
    """What the short headers stand for, over which tasks the numbers are, and what the marks mean."""
    parts = []
    for m, over_tasks in said.items():
        better = preferred(m)
        facts = ", ".join(filter(None, (f"{better} is better" if better else "", over_tasks)))
        short = "" if header is None else f"{HEADLINE[m][header]} = ".replace("\n", " ")
        parts.append(f"{short}{m}{f' ({facts})' if facts else ''}")
    notes = ["; ".join(parts) + ".", "* best mean of its column."]
    if partial:
        notes.append(f"{PARTIAL} without one of the tasks, never best.")
    if "pairs_per_s" in board.over and shares_a_clock(board.groups):
        notes.append(
            "Runs of tabular policies train as one computation and share its clock: there pairs/s does not "
            "compare algorithms."
        )
    return " ".join(notes)
