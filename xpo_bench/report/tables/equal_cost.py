"""What algorithms have earned at matched cost: at one KL, at one number of operations, and where a validation
half would stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpo_bench.report.curves import Curves, Point, Points
from xpo_bench.report.format import ABSENT, mean_pm, si_pm
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, labels
from xpo_bench.statistics import Estimate, estimate

AT_KL = (0.1, 1.0, 10.0)
EARNED = ("gold_reward", "heldout_reward_accuracy", "reward_accuracy")
"""What is reported at matched cost, the first that the curves have."""
BEST = ("test_accuracy", "gold_reward", "kl", "rejected_logp")
"""What is reported at the evaluation that the validation half prefers, beside the same at the end."""


def at(points: Points, name: str, cost: str, x: float) -> float | None:
    """A column where another first reaches `x`, linear between two evaluations; None if it never does.

    A curve may cross a KL several times; what counts is how it got there first. Nothing is extrapolated
    beyond the largest.
    """
    before: tuple[float, float] | None = None
    for point in points:
        here, y = point.get(cost), point.get(name)
        if here is None or y is None:
            continue
        if here >= x:
            if before is None or here == before[0]:
                return float(y) if here == x else None
            # y(x) = y₀ + (x − x₀)/(x₁ − x₀) · (y₁ − y₀)
            fraction = (x - before[0]) / (here - before[0])
            return float(before[1] + fraction * (y - before[1]))
        before = (float(here), float(y))
    return None


def best_point(points: Points) -> Point | None:
    """The evaluation with the highest validation_accuracy, the earliest of several; None without one."""
    known = [p for p in points if p.get("validation_accuracy") is not None]
    return max(known, key=lambda p: float(p["validation_accuracy"]), default=None)  # max keeps the first


@dataclass(frozen=True)
class MatchedMetrics:
    """A group of seeds at matched cost, each estimate absent where one of its seeds does not get there.

    Args:
        metric: what is compared; None where the curves hold nothing of it. at_kl: the metric by KL in nats.
        flops: the operations that every algorithm of the task has spent at least. at_flops: the metric there.
        best, last: the metrics of `BEST` at the evaluation that the validation half prefers, and at the last
            one that was held out. best_step: when that was.
    """

    group: SeedGroup
    metric: str | None
    at_kl: Mapping[float, Estimate | None]
    flops: float | None
    at_flops: Estimate | None
    best: Mapping[str, Estimate | None]
    last: Mapping[str, Estimate | None]
    best_step: Estimate | None

    @property
    def matched(self) -> bool:
        """Whether anything is known at matched cost."""
        return any((*self.at_kl.values(), self.at_flops))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "label": self.group.label,
            "task": self.group.task,
            "metric": self.metric,
            "at_kl": {f"{kl:g}": _document(value) for kl, value in self.at_kl.items()},
            "flops": self.flops,
            "at_flops": _document(self.at_flops),
            "best_step": _document(self.best_step),
            "best": {name: _document(value) for name, value in self.best.items()},
            "last": {name: _document(value) for name, value in self.last.items()},
        }


def matched_metrics(groups: Sequence[SeedGroup], curves: Curves) -> list[MatchedMetrics]:
    """Every group at matched cost; matched operations are those of the groups of one task that count any."""
    by_group = {g: [points for r in g.counted if (points := curves(r.key))] for g in groups}
    # the least that any run of a task has spent in all: there every curve can be read
    common: dict[str, float] = {}
    for g, runs in by_group.items():
        spent = [max((p.get("total_flops") or 0.0 for p in points), default=0.0) for points in runs]
        if spent and min(spent) > 0:
            common[g.task] = min(min(spent), common.get(g.task, min(spent)))
    return [_matched(g, runs, common.get(g.task)) for g, runs in by_group.items()]


def _matched(g: SeedGroup, runs: Sequence[Points], flops: float | None) -> MatchedMetrics:
    # one metric for all seeds, or their mean would be of different things
    name = next((m for m in EARNED if runs and all(_has(points, m) for points in runs)), None)

    def reached(cost: str, x: float) -> Estimate | None:
        return _estimate([at(points, name, cost, x) for points in runs] if name else [])

    halves = [[p for p in points if p.get("validation_accuracy") is not None] for points in runs]
    # chosen on one half, reported on the other: the choice would flatter the half that it was made on
    best = [p for points in halves if (p := best_point(points))] if all(halves) else []
    return MatchedMetrics(
        g,
        name,
        {kl: reached("kl", kl) for kl in AT_KL},
        flops,
        None if flops is None else reached("total_flops", flops),
        {m: _estimate([p.get(m) for p in best]) for m in BEST},
        {m: _estimate([points[-1].get(m) for points in halves] if best else []) for m in BEST},
        _estimate([p["step"] for p in best]),
    )


def _has(points: Points, metric: str) -> bool:
    return any(p.get(metric) is not None for p in points)


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [float(v) for v in values if v is not None]
    return estimate(known) if known and len(known) == len(values) else None


def _document(value: Estimate | None) -> dict[str, float | int | None] | None:
    return None if value is None else {"mean": value.mean, "half": value.half, "n": value.n}


def matched_tables(matched: Sequence[MatchedMetrics]) -> list[Table]:
    """The metrics at matched cost, and the last evaluation beside the best on validation."""
    at_cost = [m for m in matched if m.matched]
    halves = [m for m in matched if m.best["test_accuracy"]]
    return [*([_at_cost(at_cost)] if at_cost else []), *([_last_and_best(halves)] if halves else [])]


def _who(matched: Sequence[MatchedMetrics]) -> list[Column]:
    return [labels([m.group.label for m in matched]), labels([m.group.task for m in matched], "task")]


def _at_cost(matched: Sequence[MatchedMetrics]) -> Table:
    columns = [
        *_who(matched),
        Column("metric", [m.metric or ABSENT for m in matched], left=True),
        *(Column(f"at KL {kl:g}", [mean_pm(m.at_kl[kl]) for m in matched]) for kl in AT_KL),
    ]
    note = (
        "Where each seed's KL first gets there, linear between two evaluations; – where one does not. "
        "Nothing is extrapolated."
    )
    if any(m.at_flops for m in matched):
        spent = [si_pm(None if m.flops is None else Estimate(m.flops, None, 1)) for m in matched]
        columns += [
            Column("at matched\nFLOP", [mean_pm(m.at_flops) for m in matched]),
            Column("FLOP", spent),
        ]
        note += " FLOP: what the cheapest run of the task has spent in all."
    columns += [
        Column("last", [mean_pm(m.group.estimate(m.metric)) if m.metric else ABSENT for m in matched]),
        Column("KL of\nthe last", [mean_pm(m.group.estimate("kl")) for m in matched]),
    ]
    return Table("Metrics at matched KL and matched compute", columns, note)


def _last_and_best(matched: Sequence[MatchedMetrics]) -> Table:
    columns = _who(matched)
    for name in BEST:
        if any(m.last[name] for m in matched):
            columns += [
                Column(name, [mean_pm(m.last[name]) for m in matched]),
                Column("at best", [mean_pm(m.best[name]) for m in matched]),
            ]
    columns.append(Column("best at step", [mean_pm(m.best_step) for m in matched]))
    note = (
        "Best: each seed's earliest evaluation of highest accuracy on half of the held-out pairs; "
        "test_accuracy is on the rest."
    )
    return Table("Last, and best on validation", columns, note)
