"""What algorithms have earned at equal cost: at one KL, at one number of operations, and where a validation
half would stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from xpo_bench.report.format import ABSENT, clean, mean_pm, si_pm
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, draw, row_label, say
from xpo_bench.report.tables.sparklines import Curves, Rows
from xpo_bench.statistics import Estimate, estimate

AT_KL = (0.1, 1.0, 10.0)
EARNED = ("gold_reward", "heldout_reward_accuracy", "reward_accuracy")
"""What is read at equal cost, the first that the curves have."""
BEST = ("test_accuracy", "gold_reward", "kl", "rejected_logp")
"""What is read at the evaluation that the validation half prefers, beside the same at the end."""


def at(rows: Rows, name: str, cost: str, x: float) -> float | None:
    """A column where another first reaches `x`, linear between two evaluations; None if it never does.

    A curve may cross a KL several times; what is read is how it got there first. Nothing is read beyond the
    largest.
    """
    before: tuple[float, float] | None = None
    for row in rows:
        here, y = row.get(cost), row.get(name)
        if here is None or y is None:
            continue
        if here >= x:
            if before is None or here == before[0]:
                return float(y) if here == x else None
            share = (x - before[0]) / (here - before[0])
            return float(before[1] + share * (y - before[1]))
        before = (float(here), float(y))
    return None


def best_row(rows: Rows) -> Mapping[str, Any] | None:
    """The evaluation with the highest validation_accuracy, the earliest of several; None without one."""
    known = [row for row in rows if row.get("validation_accuracy") is not None]
    return max(known, key=lambda row: row["validation_accuracy"], default=None)  # max keeps the first


@dataclass(frozen=True)
class ReadOut:
    """What a group of seeds has earned, each estimate absent where one of its seeds does not get there.

    Args:
        metric: what is read at equal cost; None where the curves have nothing to read. at_kl: by KL in nats.
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
    def equal_cost(self) -> bool:
        """Whether anything can be read at equal cost."""
        return any((*self.at_kl.values(), self.at_flops))

    def document(self) -> dict[str, Any]:
        """The read-out as JSON."""
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


def read_outs(groups: Sequence[SeedGroup], curves: Curves) -> list[ReadOut]:
    """The read-outs of every group; common operations are those of the groups of one task that count any."""
    found = {g: [rows for record in g.counted if (rows := curves(record))] for g in groups}
    common: dict[str, float] = {}
    for g, runs in found.items():
        spent = [max((row.get("total_flops") or 0.0 for row in rows), default=0.0) for rows in runs]
        if spent and min(spent) > 0:
            common[g.task] = min(min(spent), common.get(g.task, min(spent)))
    return [_read(g, runs, common.get(g.task)) for g, runs in found.items()]


def _read(g: SeedGroup, runs: Sequence[Rows], flops: float | None) -> ReadOut:
    name = next(
        (m for m in EARNED if runs and all(any(row.get(m) is not None for row in rows) for rows in runs)),
        None,
    )

    def reached(cost: str, x: float) -> Estimate | None:
        return _estimate([at(rows, name, cost, x) for rows in runs] if name else [])

    rows_of = [[row for row in rows if row.get("validation_accuracy") is not None] for rows in runs]
    best = [row for rows in rows_of if (row := best_row(rows))] if all(rows_of) else []
    return ReadOut(
        g,
        name,
        {kl: reached("kl", kl) for kl in AT_KL},
        flops,
        None if flops is None else reached("total_flops", flops),
        {m: _estimate([row.get(m) for row in best]) for m in BEST},
        {m: _estimate([rows[-1].get(m) for rows in rows_of] if best else []) for m in BEST},
        _estimate([row["step"] for row in best]),
    )


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [float(v) for v in values if v is not None]
    return estimate(known) if known and len(known) == len(values) else None


def _document(found: Estimate | None) -> dict[str, float | int | None] | None:
    return None if found is None else {"mean": found.mean, "half": found.half, "n": found.n}


def print_read_outs(console: Console, outs: Sequence[ReadOut]) -> None:
    """The tables at equal cost, and of the last evaluation beside the best on validation."""
    _print_equal(console, [out for out in outs if out.equal_cost])
    _print_best(console, [out for out in outs if out.best["test_accuracy"]])


def _labels(outs: Sequence[ReadOut]) -> list[Column]:
    return [
        Column("", [row_label(out.group.label) for out in outs], left=True),
        Column("task", [clean(out.group.task) for out in outs], left=True),
    ]


def _print_equal(console: Console, outs: Sequence[ReadOut]) -> None:
    if not outs:
        return
    columns = [
        *_labels(outs),
        Column("metric", [out.metric or ABSENT for out in outs], left=True),
        *(Column(f"at KL {kl:g}", [mean_pm(out.at_kl[kl]) for out in outs]) for kl in AT_KL),
    ]
    counted = any(out.at_flops for out in outs)
    if counted:
        spent = [si_pm(None if out.flops is None else estimate([out.flops])) for out in outs]
        columns += [Column("at equal FLOP", [mean_pm(out.at_flops) for out in outs]), Column("FLOP", spent)]
    columns += [
        Column("last", [mean_pm(out.group.estimate(out.metric)) if out.metric else ABSENT for out in outs]),
        Column("its KL", [mean_pm(out.group.estimate("kl")) for out in outs]),
    ]
    draw(console, "At equal cost", columns)
    note = "Read where each seed's KL first gets there, between two evaluations; – where one does not. Nothing is extrapolated."
    if counted:
        note += " FLOP: what the cheapest run of the task has spent in all."
    say(console, note, "dim")
    console.print()


def _print_best(console: Console, outs: Sequence[ReadOut]) -> None:
    if not outs:
        return
    columns = _labels(outs)
    for name in BEST:
        if any(out.last[name] for out in outs):
            columns += [
                Column(name, [mean_pm(out.last[name]) for out in outs]),
                Column("at best", [mean_pm(out.best[name]) for out in outs]),
            ]
    columns.append(Column("best at step", [mean_pm(out.best_step) for out in outs]))
    draw(console, "Last, and best on validation", columns)
    say(
        console,
        "Best: each seed's earliest evaluation of highest accuracy on half of the held-out pairs; test_accuracy is on the rest.",
        "dim",
    )
    console.print()
