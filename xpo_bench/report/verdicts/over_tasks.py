"""All tasks together: ranks with their intervals, what is left of the frontier, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from xpo_bench.metrics.attained import ATTAINED
from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number
from xpo_bench.report.table import Column, Table, labels
from xpo_bench.report.verdicts.task import Row, TaskVerdict
from xpo_bench.statistics import Estimate, estimate

PROFILE = (0.5, 0.8, 0.95)
"""Scores of the performance profile."""


def over_tasks(verdicts: Sequence[TaskVerdict], order: Sequence[str]) -> Table | None:
    """Algorithms by tasks; None where fewer than two tasks rank anybody.

    Args:
        order: labels of the algorithms, in the order of the rows.

    Source: Agarwal et al. 2021 (optimality gap, performance profiles); ranks as in `verdicts.best_set`.
    """
    ranking = [v for v in verdicts if v.ranked]
    if len(ranking) < 2:
        return None
    rows = {name: [(v, v.row(name)) for v in ranking] for name in order}
    rows = {name: found for name, found in rows.items() if any(row and row.ranks for _, row in found)}
    columns = [labels(list(rows))]
    for i, v in enumerate(ranking):
        cells = [_interval(found[i][1]) for found in rows.values()]
        columns.append(Column(f"rank on\n{clean(v.task)}", cells))
    whole = {name: [row for _, row in found if row and row.ranks] for name, found in rows.items()}
    columns.append(Column("mean rank", [_mean_rank(found, len(ranking)) for found in whole.values()]))
    scores = {name: _scores(found) for name, found in rows.items()}
    columns.append(Column("optimality\ngap", [mean_pm(_gap(by_task)) for by_task in scores.values()]))
    for level in PROFILE:
        cells = [_profile(by_task, level) for by_task in scores.values()]
        columns.append(Column(f"score\n≥ {level:g}", cells))
    note = (
        "Ranks: an interval holds the rank with 95 %, all of a task at once. Mean rank: of the middles, with "
        "the means of both ends; – without one of the tasks. Score: attained on worlds with a known reward, "
        "2·x − 1 of an accuracy or a win rate, so that 0 is the initial policy. Optimality gap: mean of "
        "1 − score. Score ≥ x: of how many runs."
    )
    return Table(f"Over {counted(len(ranking), 'task')}", columns, note)


def _interval(row: Row | None) -> str:
    if row is None or row.ranks is None:
        return ABSENT
    low, high = row.ranks
    return f"{low}" if low == high else f"{low}–{high}"


def _mean_rank(rows: Sequence[Row], tasks: int) -> str:
    ranks = [row.ranks for row in rows if row.ranks]
    if len(ranks) < tasks:
        return ABSENT
    low, high = (sum(r[end] for r in ranks) / tasks for end in (0, 1))
    return f"{number((low + high) / 2)} ({number(low)}–{number(high)})"


Scores = Sequence[dict[int, float]]
"""Seed -> score, task by task."""


def _scores(found: Sequence[tuple[TaskVerdict, Row | None]]) -> Scores:
    """The runs of an algorithm on the scale on which 0 is the initial policy and 1 the best there is."""
    out = []
    for v, row in found:
        metric = v.headline.metric
        if row is None or metric is None:
            continue
        known = {seed: value for seed, value in row.group.values(metric).items() if value is not None}
        if metric in (*ATTAINED.values(), "attained"):
            out.append(known)
        elif "accuracy" in metric or "win_rate" in metric:
            out.append({seed: 2 * value - 1 for seed, value in known.items()})
    return out


def _gap(scores: Scores) -> Estimate | None:
    """Mean over tasks of 1 − score, its interval over seeds, which all tasks share."""
    seeds = sorted(set.intersection(*map(set, scores))) if scores else []
    return estimate(sum(max(0.0, 1 - of[s]) for of in scores) / len(scores) for s in seeds)


def _profile(scores: Scores, level: float) -> str:
    runs = [value for of in scores for value in of.values()]
    return f"{sum(v >= level for v in runs) / len(runs):.0%}" if runs else ABSENT
