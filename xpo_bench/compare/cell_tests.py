"""One cell of two runs, an algorithm on a task: can it be compared, and how far has which metric moved?"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scipy.stats import trim_mean

from xpo_bench.compare.baselines import CURVES, Baseline, Cell, Curve
from xpo_bench.compare.document import CellRow, MetricTest, PathRow, Throughput
from xpo_bench.compare.matching import Pairing, Seeds
from xpo_bench.compare.verdicts import Verdict, worst
from xpo_bench.metrics.margins import Margin
from xpo_bench.metrics.registry import better
from xpo_bench.metrics.throughput import MEASURED
from xpo_bench.report.records import COUNTED
from xpo_bench.report.runs import canonical
from xpo_bench.statistics import ALPHA, difference

PATH_FRACTION = 0.2
"""Fraction of the points of a curve beyond the margin from which on the curve differs."""
NAMED_SEEDS = 3
"""Changes of status that are named; one line has to hold them."""

OF_SAMPLES = ("gold_reward",)
"""Metrics that are exact on a world, and of samples where a model was trained elsewhere."""

Margins = Mapping[str, Margin]


@dataclass(frozen=True)
class Moves:
    """A metric over runs: the base's mean, and new minus base of every seed that has it twice.

    Seeds that change nothing are one run and stand once.
    """

    base: float
    differences: Sequence[float]


@dataclass
class Compared:
    """A cell of the document while it is judged, with what the tests over tasks need of it."""

    row: CellRow
    trained_elsewhere: bool = False
    moves: dict[str, Moves] = field(default_factory=dict)
    tests: list[MetricTest] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether several seeds gave one run, or one model that was there is judged as it is."""
        return self.row.get("runs") == 1 and (self.one_model or self.row["seeds"] > 1)

    @property
    def one_model(self) -> bool:
        """Whether both sides are one model each that was trained elsewhere: no other seed can be had."""
        return self.trained_elsewhere and self.row["seeds"] == 1

    def find(self, verdict: Verdict, reason: str) -> Compared:
        """Add a reason; the verdict becomes the worse of the two."""
        self.row["reasons"].append(reason)
        self.row["verdict"] = worst([self.row["verdict"], verdict])
        return self


def unjudged(pairing: Pairing) -> Compared:
    """A cell of the document before anything was found."""
    cell = pairing.first
    return Compared(
        {
            "cell": pairing.name,
            "algorithm": cell.algorithm,
            "task": cell.task,
            "experiment": cell.experiment,
            "seeds": len(pairing.before.keys() & pairing.after.keys()),
            "verdict": "same",
            "reasons": [],
            "changes": list(pairing.changes),
            "sources": [],
        },
        trained_elsewhere=cell.trained_elsewhere,
    )


def compare_seeds(pairing: Pairing, base: Baseline, new: Baseline, margins: Margins) -> Compared:
    """Judge the cell as such, and test every metric of it if any number differs."""
    before, after = pairing.before, pairing.after
    seeds = sorted(before.keys() & after.keys())
    found = unjudged(pairing)
    if not seeds:
        return found.find("undecided", f"no seed in common ({_list(before)} and {_list(after)})")
    found.row["sources"] = _changed_sources(before, after, seeds)
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


def _changed_sources(before: Seeds, after: Seeds, seeds: Iterable[int]) -> list[str]:
    """What of a cell has another source in the new run; a record without a digest tells of no change."""
    pairs = [(before[s].sources, after[s].sources) for s in seeds]
    return [
        part
        for part in ("algorithm", "task")
        if any(None is not a[part] != b[part] is not None for a, b in pairs)
    ]


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
    pairs = _runs(pairs)
    row["runs"] = len(pairs)
    row["one_platform"] = all(a.platform == b.platform for a, b in pairs.values())
    found.moves = {name: moves for name in margins if (moves := _moves(name, pairs))}
    row["identical"] = not any(any(moves.differences) for moves in found.moves.values())
    if row["identical"]:
        return found
    found.tests = [_test(found, name, moves, margins[name]) for name, moves in found.moves.items()]
    # another way to the same end is what a setting is changed for, and what another training run takes
    if row["changes"] or found.one_model:
        return found
    row["paths"] = [
        path
        for name in CURVES
        if name in margins and (path := _path(name, pairs, base, new, margins[name], found.exact))
    ]
    for path in row["paths"]:
        if path["share"] >= PATH_FRACTION:
            found.find("undecided", f"the curve of {path['metric']} differs from step {path['step']} on")
    return found


def _runs(pairs: Pairs) -> Pairs:
    """The seeds that differ in anything: runs whose data and numbers are equal are one run."""
    first: dict[str, int] = {}
    for seed, (a, b) in pairs.items():
        first.setdefault(canonical([_content(a), _content(b)]), seed)
    return {seed: pairs[seed] for seed in first.values()}


def _content(cell: Cell) -> tuple[object, ...]:
    measured = {name: value for name, value in cell.metrics.items() if name not in MEASURED}
    return cell.data, cell.status, measured


def _moves(metric: str, pairs: Pairs) -> Moves | None:
    values = [(a.metrics.get(metric), b.metrics.get(metric)) for a, b in pairs.values()]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    return Moves(statistics.fmean(a for a, _ in known), [b - a for a, b in known]) if known else None


def _test(cell: Compared, metric: str, moves: Moves, margin: Margin) -> MetricTest:
    side, row = better(metric), cell.row
    found = difference(moves.differences, side)
    informative = (bool(row["changes"]) or cell.one_model) and side is None
    # A family of tests holds what can differ: differences that are 0 to the last bit would only cost power.
    tested = any(moves.differences) and not informative
    return {
        "cell": row["cell"],
        "algorithm": row["algorithm"],
        "task": row["task"],
        "experiment": row["experiment"],
        "metric": metric,
        "better": side,
        "base": moves.base,
        "difference": found.mean,
        "ci95": None if found.low is None or found.high is None else [found.low, found.high],
        "iqm": float(trim_mean(moves.differences, 0.25)),
        "margin": margin.at(moves.base),
        "p": found.p if tested else None,
        "n": found.n,
        "exact": cell.exact and not (cell.one_model and metric in OF_SAMPLES),
        "informative": informative,
    }


def _path(
    metric: str, pairs: Pairs, base: Baseline, new: Baseline, margin: Margin, exact: bool
) -> PathRow | None:
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
        if len(known) < (1 if exact else 2) or step == 0:
            continue
        points += 1
        found = difference([b - a for a, b in known], None)
        allowed = margin.at(statistics.fmean(a for a, _ in known))
        # Bonferroni over the points of this curve; the verdict over metrics is corrected elsewhere.
        sure = exact or (found.p is not None and found.p * len(steps) < ALPHA)
        if abs(found.mean) > allowed and sure:
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
