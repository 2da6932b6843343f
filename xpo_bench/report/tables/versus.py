"""Every algorithm against one of them: paired differences over common seeds, corrected for how many there
are, and ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import better
from xpo_bench.report.format import clean, counted, mean_pm, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, labels, row_label
from xpo_bench.statistics import Estimate, estimate, holm, improvement, p_value

HEADLINES = ("frontier_gap", "gold_gain", "heldout_reward_accuracy", "reward_accuracy", "regret")
"""What a task says most by, the first that it has."""


@dataclass(frozen=True)
class Against:
    """One algorithm against the baseline on one task.

    Args:
        difference: its values minus the baseline's on common seeds. p, corrected: two-sided, of no
            difference; None from a single seed. improvement: probability that a seed of it is better than a
            seed of the baseline, ties ½.
    """

    label: str
    task: str
    metric: str
    own: Estimate
    difference: Estimate
    p: float | None
    corrected: float | None
    improvement: float


def against(groups: Sequence[SeedGroup], baseline: str, metric: str | None = None) -> list[Against]:
    """Every other group against the baseline's on the same task.

    Args:
        baseline: a label of the groups, or the name of an algorithm that has one configuration.
        metric: one with a preferred direction; the headline of each task by default.

    Raises:
        UsageError: no such algorithm, or several configurations of it, or no metric to compare by.
    """
    base_label = _baseline(groups, baseline)
    if metric is not None and better(metric) is None:
        raise UsageError(
            f"--metric {metric}: has no preferred direction, or is unknown; `xpo-bench list metrics` says "
            "which have one"
        )
    rows = []
    for task in dict.fromkeys(g.task for g in groups):
        others = [g for g in groups if g.task == task and g.label != base_label]
        base = next((g for g in groups if g.task == task and g.label == base_label), None)
        if base is None:
            continue
        name = metric or next((m for m in HEADLINES if base.estimate(m)), None)
        rows += [row for g in others if name and (row := _row(g, base, name))]
    tested = [row for row in rows if row.p is not None]
    corrected = holm([row.p for row in tested if row.p is not None])  # one family: all tasks together
    by_row = dict(zip(map(id, tested), corrected, strict=True))
    return [replace(row, corrected=by_row.get(id(row))) for row in rows]


def _baseline(groups: Sequence[SeedGroup], baseline: str) -> str:
    """The label of the baseline."""
    known = list(dict.fromkeys(g.label for g in groups))
    matching = [label for label in known if label == baseline] or [
        label for label in known if label.split(" ")[0] == baseline
    ]
    if not matching:
        raise UsageError(unknown("algorithm of this run", baseline, known))
    if len(matching) > 1:
        raise UsageError(
            f"--baseline {baseline}: has {len(matching)} configurations here; name one: "
            f"{', '.join(map(repr, matching))}"
        )
    return matching[0]


def _row(g: SeedGroup, base: SeedGroup, metric: str) -> Against | None:
    own, others = ({s: v for s, v in group.values(metric).items() if v is not None} for group in (g, base))
    # a seed draws the same data and initial policy for both: what it decides cancels in the difference
    common = sorted(own.keys() & others.keys())
    difference, mean = estimate(own[s] - others[s] for s in common), estimate(own.values())
    if difference is None or mean is None:
        return None
    # turned so that more is better: P(a seed of it > a seed of the baseline)
    sign = 1 if better(metric) == "higher" else -1
    wins = improvement([sign * v for v in own.values()], [sign * v for v in others.values()])
    return Against(g.label, g.task, metric, mean, difference, p_value(difference), None, wins)


def ranks(groups: Sequence[SeedGroup], metric: str | None = None) -> dict[str, tuple[float, int]]:
    """label -> (mean rank over tasks by the headline or the metric, 1 is best, ties averaged; how many
    tasks).

    Only tasks on which every label has the metric count, so that all are ranked among the same.
    """
    from scipy.stats import rankdata

    rows = list(dict.fromkeys(g.label for g in groups))
    collected: dict[str, list[float]] = {label: [] for label in rows}
    for task in dict.fromkeys(g.task for g in groups):
        here = {g.label: g for g in groups if g.task == task}
        if set(here) != set(rows):
            continue
        name = metric or next((m for m in HEADLINES if all(g.estimate(m) for g in here.values())), None)
        means = [e.mean for label in rows if name and (e := here[label].estimate(name))]
        if not name or len(means) < len(rows):
            continue
        # rankdata counts from the smallest, and rank 1 is to be the best; ties share their mean rank
        sign = -1 if better(name) == "higher" else 1
        for label, rank in zip(rows, rankdata([sign * mean for mean in means]), strict=True):
            collected[label].append(float(rank))
    return {label: (sum(values) / len(values), len(values)) for label, values in collected.items() if values}


def versus_table(rows: Sequence[Against], baseline: str) -> Table:
    """The rows of `against`, with how many comparisons were made."""
    columns = [
        labels([row.label for row in rows]),
        labels([row.task for row in rows], "task"),
        Column("metric", [row.metric for row in rows], left=True),
        Column("mean", [mean_pm(row.own) for row in rows]),
        Column("difference", [mean_pm(row.difference) for row in rows]),
        Column("p (Holm)", [number(row.corrected, 2) for row in rows]),
        Column("better\nthan it", [f"{row.improvement:.0%}" for row in rows]),
    ]
    tested = sum(row.p is not None for row in rows)
    note = (
        "Differences are paired over common seeds, ± half their 95 % interval; p after Holm's correction for "
        f"{tested} comparisons. Better than it: how often a seed of the algorithm beats a seed of the "
        "baseline, ties ½."
    )
    return Table(f"Against {clean(baseline)}", columns, note)


def rank_line(groups: Sequence[SeedGroup], metric: str | None = None) -> list[str]:
    """The mean ranks in one sentence; none where no task ranks all."""
    mean_ranks = ranks(groups, metric)
    if not mean_ranks:
        return []
    order = sorted(mean_ranks, key=mean_ranks.__getitem__)
    tasks = counted(mean_ranks[order[0]][1], "task")
    told = ", ".join(f"{row_label(label)} {number(mean_ranks[label][0])}" for label in order)
    return [f"Mean rank over {tasks}, 1 is best: {told}"]


def documents(rows: Sequence[Against]) -> list[Mapping[str, object]]:
    """The rows for JSON."""
    out: list[Mapping[str, object]] = []
    for row in rows:
        interval = row.difference.interval
        out.append(
            {
                "label": row.label,
                "task": row.task,
                "metric": row.metric,
                "mean": row.own.mean,
                "difference": row.difference.mean,
                "ci95": list(interval) if interval else None,
                "n": row.difference.n,
                "p": row.p,
                "p_holm": row.corrected,
                "improvement": row.improvement,
            }
        )
    return out
