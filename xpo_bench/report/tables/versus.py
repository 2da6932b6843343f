"""Every algorithm against one of them: paired differences over common seeds, corrected for how many there
are, and ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import better
from xpo_bench.report.format import clean, mean_pm, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, draw, row_label, say
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
        baseline: a label of the groups, or the name of an algorithm that has one configuration. metric: one
            that has a better side; the headline of each task by default.

    Raises:
        UsageError: no such algorithm, or several configurations of it, or no metric to compare by.
    """
    labels = list(dict.fromkeys(g.label for g in groups))
    own = [label for label in labels if label == baseline] or [
        label for label in labels if label.split(" ")[0] == baseline
    ]
    if len(own) != 1:
        several = f"--baseline {baseline}: has {len(own)} configurations here; name one: {', '.join(map(repr, own))}"
        raise UsageError(several if own else unknown("algorithm of this run", baseline, labels))
    if metric is not None and better(metric) is None:
        raise UsageError(
            f"--metric {metric}: is neither better higher nor lower, or is unknown; `xpo-bench list metrics` says which are"
        )
    rows = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task]
        base = next((g for g in here if g.label == own[0]), None)
        if base is None:
            continue
        name = metric or next((m for m in HEADLINES if base.estimate(m)), None)
        rows += [found for g in here if g is not base and name and (found := _row(g, base, name))]
    told = [row for row in rows if row.p is not None]
    corrected = dict(zip(map(id, told), holm([row.p for row in told if row.p is not None]), strict=True))
    return [Against(**(vars(row) | {"corrected": corrected.get(id(row))})) for row in rows]


def _row(g: SeedGroup, base: SeedGroup, metric: str) -> Against | None:
    own, others = ({s: v for s, v in group.values(metric).items() if v is not None} for group in (g, base))
    common = sorted(own.keys() & others.keys())
    difference, mean = estimate(own[s] - others[s] for s in common), estimate(own.values())
    if difference is None or mean is None:
        return None
    sign = 1 if better(metric) == "higher" else -1
    wins = improvement([sign * v for v in own.values()], [sign * v for v in others.values()])
    return Against(g.label, g.task, metric, mean, difference, p_value(difference), None, wins)


def ranks(groups: Sequence[SeedGroup], metric: str | None = None) -> dict[str, tuple[float, int]]:
    """label -> (mean rank over tasks by the headline or the metric, 1 is best, ties averaged; how many
    tasks).

    Only tasks on which every label has the metric count, so that all are ranked among the same.
    """
    from scipy.stats import rankdata

    labels = list(dict.fromkeys(g.label for g in groups))
    collected: dict[str, list[float]] = {label: [] for label in labels}
    for task in dict.fromkeys(g.task for g in groups):
        here = {g.label: g for g in groups if g.task == task}
        if set(here) != set(labels):
            continue
        name = metric or next((m for m in HEADLINES if all(g.estimate(m) for g in here.values())), None)
        found = [here[label].estimate(name) for label in labels] if name else []
        if not name or not all(found):
            continue
        sign = -1 if better(name) == "higher" else 1
        for label, rank in zip(labels, rankdata([sign * e.mean for e in found if e]), strict=True):
            collected[label].append(float(rank))
    return {label: (sum(values) / len(values), len(values)) for label, values in collected.items() if values}


def print_against(
    console: Console, groups: Sequence[SeedGroup], baseline: str, metric: str | None = None
) -> None:
    """The table of `against`, the ranks, and how many comparisons were made."""
    rows = against(groups, baseline, metric)
    if not rows:
        say(
            console,
            f"nothing to compare with {baseline}: no other algorithm on a task of it has its metric",
            "dim",
        )
        return
    columns = [
        Column("", [row_label(row.label) for row in rows], left=True),
        Column("task", [clean(row.task) for row in rows], left=True),
        Column("metric", [row.metric for row in rows], left=True),
        Column("mean", [mean_pm(row.own) for row in rows]),
        Column("difference", [mean_pm(row.difference) for row in rows]),
        Column("p (Holm)", [number(row.corrected, 2) for row in rows]),
        Column("better\nthan it", [f"{row.improvement:.0%}" for row in rows]),
    ]
    draw(console, f"Against {clean(baseline)}", columns)
    n = sum(row.p is not None for row in rows)
    say(
        console,
        f"Differences are paired over common seeds, ± half their 95 % interval; p after Holm's correction for {n} comparisons.",
        "dim",
    )
    say(
        console,
        "Better than it: how often a seed of the algorithm beats a seed of the baseline, ties ½.",
        "dim",
    )
    if table := ranks(groups, metric):
        order = sorted(table, key=lambda label: table[label])
        tasks = next(iter(table.values()))[1]
        told = ", ".join(f"{row_label(label)} {number(table[label][0])}" for label in order)
        say(console, f"Mean rank over {tasks} task{'s' if tasks != 1 else ''}, 1 is best: {told}", "")
    console.print()


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
