"""One cell of two runs, an algorithm on a task: can it be compared, and how far has which metric moved?"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from scipy.stats import trim_mean

from xpo_bench.compare.baselines import CURVES, Baseline, Cell, Curve
from xpo_bench.compare.margins import Margin
from xpo_bench.compare.verdicts import Verdict, worst
from xpo_bench.metrics.registry import better
from xpo_bench.report.records import COUNTED
from xpo_bench.report.runs import canonical
from xpo_bench.statistics import ALPHA, difference

PATH_FRACTION = 0.2
"""Fraction of the points of a curve beyond the margin from which on the curve differs."""
NAMED_SEEDS = 3
"""Changes of status that are named; one line has to hold them."""

Seeds = Mapping[int, Cell]
Margins = Mapping[str, Margin]


class Labelled(TypedDict):
    """The cell that a row of the document is about."""

    cell: str
    algorithm: str
    task: str
    experiment: str | None


class Throughput(TypedDict):
    """Median training pairs per second."""

    base: float
    new: float


class PathRow(TypedDict):
    """Where a curve differs: at which fraction of its points, and from which step on."""

    metric: str
    points: int
    share: float
    step: int


class CellRow(Labelled, total=False):
    """One cell in the document; the parts after `reasons` are there where it could be compared."""

    seeds: int
    verdict: Verdict
    reasons: list[str]
    throughput: Throughput | None
    one_platform: bool
    identical: bool
    paths: list[PathRow]


class MetricTest(Labelled, total=False):
    """The test of one metric of one cell; p_holm and verdict follow once every test is known."""

    metric: str
    better: str | None
    base: float
    difference: float
    ci95: list[float] | None
    iqm: float
    margin: float
    p: float | None
    n: int
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True)
class Moves:
    """A metric over the common seeds: the base's mean, and new minus base of every seed that has it twice."""

    base: float
    differences: Sequence[float]


@dataclass
class Compared:
    """A cell of the document while it is judged, with what the tests over tasks need of it."""

    row: CellRow
    moves: dict[str, Moves] = field(default_factory=dict)
    tests: list[MetricTest] = field(default_factory=list)

    def find(self, verdict: Verdict, reason: str) -> Compared:
        """Add a reason; the verdict becomes the worse of the two."""
        self.row["reasons"].append(reason)
        self.row["verdict"] = worst([self.row["verdict"], verdict])
        return self


def unjudged(name: str, cell: Cell, seeds: int) -> Compared:
    """A cell of the document before anything was found."""
    return Compared(
        {
            "cell": name,
            "algorithm": cell.algorithm,
            "task": cell.task,
            "experiment": cell.experiment,
            "seeds": seeds,
            "verdict": "same",
            "reasons": [],
        }
    )


def compare_seeds(before: Seeds, after: Seeds, base: Baseline, new: Baseline, margins: Margins) -> Compared:
    """Judge the cell as such, and test every metric of it if any number differs."""
    first = next(iter(before.values()))
    seeds = sorted(before.keys() & after.keys())
    found = unjudged(canonical(first.identity), first, len(seeds))
    if not seeds:
        return found.find("undecided", f"no seed in common ({_list(before)} and {_list(after)})")
    if gone := before.keys() - after.keys():
        found.find("undecided", f"seed {_list(gone)} is missing from the new run")
    if reason := _incomparable(before, after, seeds):
        return found.find("undecided", reason)
    worse = [s for s in seeds if _rank(after[s]) > _rank(before[s])]
    if worse:
        found.find("regression", _status_changes(before, after, worse))
    both = [s for s in seeds if before[s].status in COUNTED and after[s].status in COUNTED]
    if not both:
        return found if worse else found.find("undecided", "no cell is ok in both runs")
    return _metrics(found, {s: (before[s], after[s]) for s in both}, base, new, margins)


def _incomparable(before: Seeds, after: Seeds, seeds: Iterable[int]) -> str | None:
    """Why the numbers of two cells of one identity must not be compared; None where they may."""
    if odd := [s for s in seeds if before[s].task_version != after[s].task_version]:
        return f"cannot be compared: another task version at seed {_list(odd)}"
    if odd := [s for s in seeds if before[s].data != after[s].data]:
        return f"cannot be compared: another data at seed {_list(odd)}"
    return None


def _status_changes(before: Seeds, after: Seeds, seeds: Sequence[int]) -> str:
    changes = [f"{before[s].status} → {after[s].status} at seed {s}" for s in seeds[:NAMED_SEEDS]]
    return ", ".join(changes)


def _rank(cell: Cell) -> Literal[0, 1, 2]:
    """How bad a status is: divergence on a task that expects it is as good as ok."""
    if cell.status == "ok" or (cell.status == "diverged" and cell.expected_divergence):
        return 0
    return 1 if cell.status == "diverged" else 2


Pairs = Mapping[int, tuple[Cell, Cell]]
"""seed -> the cell before and after, where the metrics of both count"""


def _metrics(found: Compared, pairs: Pairs, base: Baseline, new: Baseline, margins: Margins) -> Compared:
    """Add the tests of the metrics and of the curves, unless every number is the same."""
    lost = {name for a, b in pairs.values() for name in a.metrics.keys() - b.metrics.keys()}
    if lost := lost & margins.keys():
        found.find("undecided", f"{_list(lost)}: not in the new run")
    row = found.row
    row["throughput"] = _throughput(pairs)
    row["one_platform"] = all(a.platform == b.platform for a, b in pairs.values())
    found.moves = {name: moves for name in margins if (moves := _moves(name, pairs))}
    row["identical"] = not any(any(moves.differences) for moves in found.moves.values())
    if row["identical"]:
        return found
    found.tests = [_test(row, name, moves, margins[name]) for name, moves in found.moves.items()]
    row["paths"] = [
        path for name in CURVES if name in margins and (path := _path(name, pairs, base, new, margins[name]))
    ]
    for path in row["paths"]:
        if path["share"] >= PATH_FRACTION:
            found.find("undecided", f"the curve of {path['metric']} differs from step {path['step']} on")
    return found


def _moves(metric: str, pairs: Pairs) -> Moves | None:
    values = [(a.metrics.get(metric), b.metrics.get(metric)) for a, b in pairs.values()]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    return Moves(statistics.fmean(a for a, _ in known), [b - a for a, b in known]) if known else None


def _test(row: CellRow, metric: str, moves: Moves, margin: Margin) -> MetricTest:
    found = difference(moves.differences, better(metric))
    return {
        "cell": row["cell"],
        "algorithm": row["algorithm"],
        "task": row["task"],
        "experiment": row["experiment"],
        "metric": metric,
        "better": better(metric),
        "base": moves.base,
        "difference": found.mean,
        "ci95": None if found.low is None or found.high is None else [found.low, found.high],
        "iqm": float(trim_mean(moves.differences, 0.25)),
        "margin": margin.at(moves.base),
        "p": found.p,
        "n": found.n,
    }


def _path(metric: str, pairs: Pairs, base: Baseline, new: Baseline, margin: Margin) -> PathRow | None:
    """Where the curves of a metric differ significantly and by more than the margin; None where nowhere."""
    curves = [
        (_by_step(base.curves.get(a.key, []), metric), _by_step(new.curves.get(b.key, []), metric))
        for a, b in pairs.values()
    ]
    steps = sorted(set.intersection(*(set(side) for both in curves for side in both)))
    beyond, points = [], 0
    for step in steps:
        known = [
            (a, b) for old, later in curves if (a := old[step]) is not None and (b := later[step]) is not None
        ]
        # Every run starts at the reference, so that step 0 says nothing; one seed has no spread.
        if len(known) < 2 or step == 0:
            continue
        points += 1
        found = difference([b - a for a, b in known], None)
        allowed = margin.at(statistics.fmean(a for a, _ in known))
        # Bonferroni over the points of this curve; the verdict over metrics is corrected elsewhere.
        if abs(found.mean) > allowed and found.p is not None and found.p * len(steps) < ALPHA:
            beyond.append(step)
    if not beyond:
        return None
    return {"metric": metric, "points": points, "share": len(beyond) / points, "step": beyond[0]}


def _by_step(curve: Curve, metric: str) -> dict[int, float | None]:
    return {int(row["step"] or 0): row.get(metric) for row in curve}


def _throughput(pairs: Pairs) -> Throughput | None:
    """Median training pairs per second of both runs, for information."""
    old = [v for a, _ in pairs.values() if (v := a.metrics.get("pairs_per_s"))]
    new = [v for _, b in pairs.values() if (v := b.metrics.get("pairs_per_s"))]
    return {"base": statistics.median(old), "new": statistics.median(new)} if old and new else None


def _list(names: Collection[int] | Collection[str]) -> str:
    return ", ".join(map(str, sorted(names)))
