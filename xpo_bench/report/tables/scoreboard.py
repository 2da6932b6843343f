"""The scoreboard: all algorithms of a run beside each other, over all its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from xpo_bench.metrics.registry import find
from xpo_bench.report.format import clean, mean_pm, narrow
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, broken_header, draw, row_label, say, total_width
from xpo_bench.report.tables.columns import competes, direction, metric_column, shares_a_clock
from xpo_bench.statistics import Estimate, estimate

HEADLINE = {
    "frontier_gap": "gap",
    "kl": "KL",
    "collapsed": "coll.",
    "rejected_drift": "drift",
    "displacement": "displ.",
    "reward_accuracy": "acc.",
    "heldout_reward_accuracy": "held",
    "pairs_per_s": "pairs/s",
}
"""The metrics of the scoreboard and their short headers."""
EXTREME: Mapping[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "kl": ("largest", max),
    "rejected_drift": ("lowest", min),
    "displacement": ("lowest", min),
    "pairs_per_s": ("slowest", min),
}
"""Metrics without a common scale: over several tasks the scoreboard shows one task's number, never a mean."""


def print_scoreboard(console: Console, groups: Sequence[SeedGroup]) -> None:
    """Algorithms x headline metrics: per task where that fits the width, else over all tasks.

    Over several tasks a share or a reward is the mean over the tasks that have it; kl, rejected_drift,
    displacement and pairs_per_s have no common scale and show the largest, lowest, lowest and slowest task. A
    row that lacks one of the tasks is marked ° and is never best.
    """
    labels = list(dict.fromkeys(g.label for g in groups))
    tasks = list(dict.fromkeys(g.task for g in groups))
    present = [m for m in HEADLINE if any(g.estimate(m) for g in groups)]
    who = Column("", [row_label(x) for x in labels], left=True)
    place = {(g.label, g.task): g for g in groups}

    if len(tasks) > 1:
        wide = [
            metric_column(
                f"{clean(task)}\n{HEADLINE[m]}", m, [place.get((x, task)) for x in labels], narrow_cells=True
            )
            for task in tasks
            for m in present
            if any((x, task) in place and place[x, task].estimate(m) for x in labels)
        ]
        if total_width([who, *wide]) <= console.width:
            draw(console, "Scoreboard by task", [who, *wide])
            say(console, _legend(dict.fromkeys(present, ""), groups), "dim")
            console.print()
            return
    over = {
        m: [t for t in tasks if any((x, t) in place and place[x, t].estimate(m) for x in labels)]
        for m in present
    }
    drawn = [_over_tasks(m, labels, over[m], place) for m in present]
    columns = [column(False) for column in drawn]
    short = total_width([who, *columns]) > console.width
    if short:
        columns = [column(True) for column in drawn]
    draw(
        console,
        f"Scoreboard over {', '.join(map(clean, tasks))}" if len(tasks) > 1 else "Scoreboard",
        [who, *columns],
    )
    said = {m: _over(m, over[m], len(tasks)) for m in present}
    say(
        console,
        _legend(said, groups, short, any("°" in c for column in columns for c in column.cells)),
        "dim",
    )
    console.print()


def board(groups: Sequence[SeedGroup]) -> Table:
    """The scoreboard over all tasks with whole names of metrics and intervals, for a page that has the room."""
    labels = list(dict.fromkeys(g.label for g in groups))
    tasks = list(dict.fromkeys(g.task for g in groups))
    place = {(g.label, g.task): g for g in groups}
    over = {m: [t for t in tasks if any(g.task == t and g.estimate(m) for g in groups)] for m in HEADLINE}
    over = {m: there for m, there in over.items() if there}
    columns = [_over_tasks(m, labels, there, place)(False) for m, there in over.items()]
    said = {m: _over(m, there, len(tasks)) for m, there in over.items()}
    partial = any("°" in c for column in columns for c in column.cells)
    title = f"Scoreboard over {', '.join(map(clean, tasks))}" if len(tasks) > 1 else "Scoreboard"
    who = Column("", [row_label(x) for x in labels], left=True)
    return Table(title, [who, *columns], _legend(said, groups, short=False, partial=partial))


def board_document(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """The scoreboard as JSON: `metrics` with the tasks each is over and how, and a row per algorithm.

    A number of a row is {"mean", "ci95", "n", "tasks", "best"}; `best` where it would be marked.
    """
    labels = list(dict.fromkeys(g.label for g in groups))
    place = {(g.label, g.task): g for g in groups}
    metrics: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = [{"label": label, "metrics": {}} for label in labels]
    for name in HEADLINE:
        tasks = list(dict.fromkeys(g.task for g in groups if g.estimate(name)))
        if not tasks:
            continue
        how = EXTREME[name][0] if name in EXTREME else "mean"
        column = _over_tasks(name, labels, tasks, place)(False)
        metrics.append({"name": name, "tasks": tasks, "over_tasks": how, "better": column.better})
        for row, best in zip(rows, column.best, strict=True):
            have = [g for t in tasks if (g := place.get((row["label"], t))) and g.estimate(name)]
            if found := _aggregate(name, have):
                interval = list(found.interval) if found.interval else None
                row["metrics"][name] = {
                    "mean": found.mean,
                    "ci95": interval,
                    "n": found.n,
                    "tasks": len(have),
                    "best": best,
                }
    return {"metrics": metrics, "rows": rows}


def _over(name: str, tasks: Sequence[str], of: int) -> str:
    """Over which tasks a number of the scoreboard is, and how."""
    if of == 1:
        return ""
    if len(tasks) == 1:
        return f"on {clean(tasks[0])}"
    how = EXTREME[name][0] if name in EXTREME else "mean"
    return f"{how} of {f'all {of} tasks' if len(tasks) == of else ', '.join(map(clean, tasks))}"


def _over_tasks(
    name: str, labels: Sequence[str], tasks: Sequence[str], place: Mapping[tuple[str, str], SeedGroup]
) -> Callable[[bool], Column]:
    """One metric over the tasks that have it: their mean with its interval over seeds, or the worst of them.

    Returns: the column, in plain figures under a short header, or in full.
    """
    rows, values = [], []
    for label in labels:
        there = [place[label, t] for t in tasks if (label, t) in place]
        have = [g for g in there if g.estimate(name)]
        found = _aggregate(name, have)
        short = len(have) < len(tasks) and found is not None
        rows.append((found, "°" if short else ""))
        values.append(found.mean if found and not short and all(map(competes, have)) else None)
    better = direction(name, [g for (label, t), g in place.items() if t in tasks])

    def column(plain: bool) -> Column:
        cells = [
            (narrow(found.mean if found else None) if plain else mean_pm(found)) + mark
            for found, mark in rows
        ]
        return Column(HEADLINE[name] if plain else broken_header(name), cells, values, better)

    return column


def _aggregate(name: str, groups: Sequence[SeedGroup]) -> Estimate | None:
    found = [e for g in groups if (e := g.estimate(name))]
    if len(found) < 2:
        return found[0] if found else None
    if name in EXTREME:
        extreme = EXTREME[name][1]([e.mean for e in found])
        return next(e for e in found if e.mean == extreme)
    mean = sum(e.mean for e in found) / len(found)
    by_seed = [g.values(name) for g in groups]
    if any(set(v) != set(by_seed[0]) for v in by_seed):
        return Estimate(mean, None, min(e.n for e in found))  # seeds differ: no paired interval
    rows = ([v[s] for v in by_seed] for s in by_seed[0])
    means = (None if None in row else sum(v for v in row if v is not None) / len(row) for row in rows)
    per_seed = estimate(means)
    return replace(per_seed, mean=mean) if per_seed else Estimate(mean, None, 1)


def _legend(
    said: Mapping[str, str], groups: Sequence[SeedGroup], short: bool = True, partial: bool = False
) -> str:
    """What the short headers stand for, where they are short, over which tasks the numbers are, and what the
    marks mean.
    """
    parts = []
    for m, over in said.items():
        found = find(m)
        facts = [f"{found.better} is better" if found and found.better else "", over]
        told = ", ".join(f for f in facts if f)
        parts.append(f"{f'{HEADLINE[m]} = ' if short else ''}{m}{f' ({told})' if told else ''}")
    notes = ["; ".join(parts) + ".", "* best mean of its column."]
    if partial:
        notes.append("° without one of the tasks, never best.")
    if "pairs_per_s" in said and shares_a_clock(groups):
        notes.append(
            "Runs on tables train as one computation and share its clock: there pairs/s does not compare algorithms."
        )
    return " ".join(notes)
