"""`--protocol tuned`: every algorithm gets the same number of trials, and runs at the one that validates
best.

Trial 0 is the configuration as it was asked for; the others are points of a scrambled Sobol sequence over the
algorithm's search space and its learning rate. Trials train on the training rows without a validation split,
at seeds that are not reported; what is reported is trained on all training rows at the run's own seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, log2, sqrt
from typing import Any

import numpy as np

from xpo_bench.errors import UsageError
from xpo_bench.metrics.registry import find as find_metric
from xpo_bench.random_streams import stream
from xpo_bench.runner.plan import Cell, Plan, TaskSetup, make_cell
from xpo_bench.runner.request import Request
from xpo_bench.runner.settings import names, validate

TRIALS = 16
"""Trials of an algorithm on a task, its default among them."""
SELECT = "heldout_reward_accuracy"
"""By what a trial is chosen: every algorithm that learns from pairs has it, and it asks for no test set and
no truth.
"""
TUNING_SEEDS = (1_000_000, 1_000_001, 1_000_002)
"""Seeds of trials, as many of them as the run has seeds, three at most."""
RATE = sqrt(10)
"""A learning rate is searched from the task's own divided by this to the task's own times this: a decade."""
DECADE = 10.0
"""From which ratio of its bounds on a range is searched in the logarithm."""
SPREAD = (SELECT, "frontier_gap", "kl")
"""Metrics whose spread over the trials is kept, besides that of the selection."""
LR = "train.lr"


@dataclass(frozen=True)
class Axis:
    """One dimension of a search. `whole`: only whole numbers."""

    name: str
    low: float
    high: float
    whole: bool = False

    def at(self, u: float) -> float:
        """The value at u in [0, 1), four significant digits inside the bounds: log-uniform from a decade on,
        else uniform.
        """
        if self.low > 0 and self.high / self.low >= DECADE * (1 - 1e-9):
            value = float(self.low * (self.high / self.low) ** u)
        else:
            value = self.low + (self.high - self.low) * u
        value = min(max(float(f"{value:.4g}"), self.low), self.high)
        return round(value) if self.whole else value


def draw(axes: Sequence[Axis], count: int, name: str) -> list[dict[str, float]]:
    """The first `count` points of the scrambled Sobol sequence that belongs to a name; more points begin with
    the same ones.
    """
    if count < 1 or not axes:
        return []
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(axes), scramble=True, seed=stream(0, name, "trials"))
    points = sampler.random_base2(max(1, ceil(log2(count))))[:count]
    return [{axis.name: axis.at(float(u)) for axis, u in zip(axes, point, strict=True)} for point in points]


@dataclass
class Subject:
    """One algorithm on one task: its cells as they were asked for, and its trials."""

    cells: list[Cell]
    setup: TaskSetup
    axes: list[Axis]
    changes: list[dict[str, float]]
    reason: str | None = None

    @property
    def first(self) -> Cell:
        return self.cells[0]

    def cell(self, setup: TaskSetup, number: int, seed: int, role: str) -> Cell:
        """The cell of a trial's configuration at a seed; a trial's experiment ends as those that tables leave
        out.
        """
        first, changes = self.first, dict(self.changes[number])
        lr = changes.pop(LR, first.lr)
        algorithm = validate(type(first.algorithm), {**first.config, **changes}, first.algorithm.name)
        experiment = " ".join(
            filter(None, (first.experiment, "tuned search" if role == "trial" else "tuned"))
        )
        protocol = {"name": "tuned", "role": role, "trial": number}
        return make_cell(setup, algorithm, first.info, (lr, first.optimizer), seed, experiment, protocol)


def check(trials: int, select: str) -> None:
    """Refuse numbers of trials and metrics that nothing can be chosen by.

    Raises:
        UsageError: in one line.
    """
    if trials < 1:
        raise UsageError(
            f"--trials {trials}: want at least 1, the default configuration; {TRIALS} by default"
        )
    metric = find_metric(select.removeprefix("heldout_"))
    if not select.startswith("heldout_") or metric is None or metric.better is None:
        raise UsageError(
            f"--select {select}: want a heldout_ metric of which higher or lower is better, such as {SELECT}; "
            "in a trial it is taken on the validation split"
        )


Run = Callable[[Plan], Sequence[Mapping[str, Any]]]
"""Executes a plan and returns its records."""


def find(
    base: Plan, asked: Sequence[Request], trials: int, select: str, run: Run, tell: Callable[[str], None]
) -> tuple[Plan, list[dict[str, Any]]]:
    """Run all trials of a plan and choose.

    Returns:
        the plan of what is reported, the cells of `base` and those of the chosen configurations; and a
        document per algorithm
        and task: what was searched, every trial with its score, the one chosen, the spread over the trials,
        and the keys of the cells to compare.

    Raises:
        UsageError: a sweep, or a reported seed that is one of the trials'.
    """
    swept = [
        f"{t}.{f}"
        for request in asked
        for t, chosen in request.settings.items()
        for f, v in chosen.items()
        if len(v) > 1
    ]
    if swept:
        raise UsageError(f"--protocol tuned searches at one setting: give {swept[0]} one value")
    if any(cell.seed in TUNING_SEEDS for cell in base.cells):
        raise UsageError(
            f"--seeds: {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]} are the seeds of the trials; report others"
        )
    subjects = _subjects(base, asked, trials)
    cells: dict[str, Cell] = {}
    for subject in subjects:
        if subject.reason:
            tell(
                f"{subject.first.algorithm.name} on {subject.first.setup.name}: default only: {subject.reason}"
            )
            continue
        for number in range(len(subject.changes)):
            for cell in _trial(subject, number):
                cells.setdefault(cell.key, cell)
    if cells:
        tell(f"tuned: {len(cells)} cells of {trials} trials, chosen by {select} on validation splits")
    records = {r["key"]: r for r in run(Plan(list(cells.values())))} if cells else {}
    plan, found = Plan(list(base.cells), base.skipped, base.unreachable), []
    for subject in subjects:
        chosen, document = _choose(subject, records, select)
        reported = (
            [subject.cell(subject.first.setup, chosen, c.seed, "tuned") for c in subject.cells]
            if chosen
            else subject.cells
        )
        if chosen:
            plan.cells += reported
        keys = {"default": [c.key for c in subject.cells], "tuned": [c.key for c in reported]}
        found.append(document | {"keys": keys})
    return plan, found


def _trial(subject: Subject, number: int) -> list[Cell]:
    seeds = TUNING_SEEDS[: len(subject.cells)]
    return [subject.cell(subject.setup, number, seed, "trial") for seed in seeds]


def _subjects(base: Plan, asked: Sequence[Request], trials: int) -> list[Subject]:
    """The cells of a plan gathered over seeds, with their trials."""
    together: dict[Any, list[Cell]] = {}
    for cell in base.cells:
        key = (
            id(cell.setup),
            cell.algorithm.name,
            repr(cell.config),
            cell.lr,
            cell.optimizer,
            cell.experiment,
        )
        together.setdefault(key, []).append(cell)
    setups: dict[int, TaskSetup] = {}
    out = []
    for cells in together.values():
        first = cells[0]
        setup = setups.setdefault(id(first.setup), replace(first.setup, validation=True, _data={}))
        axes = _axes(first, asked)
        subject = Subject(cells, setup, axes, [{}, *draw(axes, trials - 1, first.algorithm.name)])
        if not axes:
            subject.reason = "it declares no range that is still free"
        else:
            try:
                for seed in TUNING_SEEDS[: len(cells)]:
                    setup.dataset(seed)
            except UsageError as error:
                subject.reason = str(error)
        out.append(subject)
    return out


def _axes(cell: Cell, asked: Sequence[Request]) -> list[Axis]:
    """What is searched: the declared ranges and the learning rate, without what the user has fixed."""
    cls, name = type(cell.algorithm), cell.algorithm.name
    written = dict(zip([f.name for f in fields(cls)], names(cls), strict=True))
    fixed = {field for request in asked for field in request.settings.get(name, {})}
    axes = []
    for field, (low, high) in cls.search_space.items():
        if low < high and not fixed & {field, written[field]}:
            axes.append(Axis(written[field], low, high, isinstance(getattr(cell.algorithm, field), int)))
    rate_fixed = any("lr" in r.budget or "lr" in r.settings.get(f"{name}.train", {}) for r in asked)
    rate_fixed = rate_fixed or any("lr" in r.settings.get("task", {}) for r in asked)
    if not rate_fixed and not all(stage.solve for stage in cell.algorithm.stages()):
        axes.append(Axis(LR, cell.lr / RATE, cell.lr * RATE))
    return axes


def _choose(
    subject: Subject, records: Mapping[str, Mapping[str, Any]], select: str
) -> tuple[int, dict[str, Any]]:
    """The number of the best trial, the earliest of those that tie, and the document."""
    runs = (
        []
        if subject.reason
        else [[records.get(c.key) for c in _trial(subject, number)] for number in range(len(subject.changes))]
    )
    scores = [_mean(trial, select) for trial in runs]
    reason, chosen = subject.reason, 0
    known = [s for s in scores if s is not None]
    if known:
        chosen = scores.index(_best(known, select))
    elif not reason:
        reason = f"no trial has {select}; --select names another metric"
    spread = {
        m: s
        for m in dict.fromkeys((select, *SPREAD))
        if (s := _spread([_mean(trial, m) for trial in runs], m))
    }
    document = {
        "algorithm": subject.first.algorithm.name,
        "task": subject.first.setup.name,
        "experiment": subject.first.experiment,
        "select": select,
        "seeds": list(TUNING_SEEDS[: len(subject.cells)]),
        "space": {axis.name: [axis.low, axis.high] for axis in subject.axes},
        "trials": [{"changes": c, "score": s} for c, s in zip(subject.changes, scores, strict=False)],
        "chosen": chosen,
        "changes": subject.changes[chosen],
        "spread": spread,
        "reason": reason,
    }
    return chosen, document


def _mean(trial: Iterable[Mapping[str, Any] | None], metric: str) -> float | None:
    """A trial's mean over seeds, None unless every seed is ok and has it."""
    values = [r["metrics"].get(metric) if r is not None and r["status"] == "ok" else None for r in trial]
    known = [float(v) for v in values if v is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _best(values: Sequence[float], metric: str) -> float:
    found = find_metric(metric.removeprefix("heldout_"))
    return min(values) if found and found.better == "lower" else max(values)


def _spread(values: Sequence[float | None], metric: str) -> dict[str, float] | None:
    """Quartiles and ends over the trials that have the metric; `failed` counts those that have not."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    low, middle, high = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
    found = find_metric(metric.removeprefix("heldout_"))
    best, worst = (max(known), min(known)) if found and found.better == "higher" else (min(known), max(known))
    if not (found and found.better):
        best, worst = worst, best
    ends = {"best": best, "worst": worst, "q1": low, "median": middle, "q3": high}
    return ends | {"n": len(known), "failed": len(values) - len(known)}
