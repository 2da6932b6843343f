"""`--protocol tuned`: every algorithm gets as many trials, and runs at the one that validates best.

Trial 0 is the configuration as it was asked for; the others are points of a scrambled Sobol sequence over the
algorithm's search space and its learning rate. Trials train on the training rows without a validation split,
at seeds that are not reported; what is reported is trained on all training rows at the run's own seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xpo_bench.errors import UsageError
from xpo_bench.metrics.registry import find as find_metric
from xpo_bench.runner.plan import Cell, Plan, make_cell
from xpo_bench.runner.record import Protocol, Record
from xpo_bench.runner.run_document import Trial, Tuning
from xpo_bench.runner.search.space import LR, Axis, axes_of, draw
from xpo_bench.runner.settings import swept, validate
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.runner.words import Request

TRIALS = 16
"""Trials of an algorithm on a task, its default among them."""
SELECT = "heldout_reward_accuracy"
"""By what a trial is chosen: whatever learns from pairs has it, and it asks for no test set and no truth."""
TUNING_SEEDS = (1_000_000, 1_000_001, 1_000_002)
"""Seeds of trials, as many of them as the run has seeds, three at most."""
SPREAD = (SELECT, "frontier_gap", "kl")
"""Metrics whose spread over the trials is kept, besides that of the selection."""


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

    def cell(self, setup: TaskSetup, number: int, seed: int, role: Literal["trial", "tuned"]) -> Cell:
        """The cell of a trial's configuration at a seed."""
        first, changes = self.first, dict(self.changes[number])
        lr = changes.pop(LR, first.lr)
        algorithm = validate(type(first.algorithm), {**first.config, **changes}, first.algorithm.name)
        # tables leave out experiments whose name ends in "search"
        experiment = " ".join(
            filter(None, (first.experiment, "tuned search" if role == "trial" else "tuned"))
        )
        protocol: Protocol = {"name": "tuned", "role": role, "trial": number}
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
            f"--select {select}: want a heldout_ metric with a preferred direction, such as {SELECT}; "
            "in a trial it is taken on the validation split"
        )


Run = Callable[[Plan], Sequence[Record]]
"""Executes a plan and returns its records."""


def find(
    base: Plan, asked: Sequence[Request], trials: int, select: str, run: Run, note: Callable[[str], None]
) -> tuple[Plan, list[Tuning]]:
    """Run all trials of a plan and choose.

    Returns:
        the plan of what is reported, the cells of `base` and those of the chosen configurations; and what was
        found for every algorithm on every task.

    Raises:
        UsageError: a sweep, or a reported seed that is one of the trials'.
    """
    for request in asked:
        if field := swept(request.settings):
            raise UsageError(f"--protocol tuned searches at one setting: give {field} one value")
    if any(cell.seed in TUNING_SEEDS for cell in base.cells):
        raise UsageError(
            f"--seeds: {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]} are the seeds of the trials; report others"
        )
    subjects = _subjects(base, asked, trials)
    cells: dict[str, Cell] = {}
    for subject in subjects:
        if subject.reason:
            first = subject.first
            note(f"{first.algorithm.name} on {first.setup.name}: default only: {subject.reason}")
            continue
        for number in range(len(subject.changes)):
            for cell in _trial(subject, number):
                cells.setdefault(cell.key, cell)
    if cells:
        note(f"tuned: {len(cells)} cells of {trials} trials, chosen by {select} on validation splits")
    records = {r["key"]: r for r in run(Plan(list(cells.values())))} if cells else {}
    plan, found = Plan(list(base.cells), base.skipped, base.unreachable), []
    for subject in subjects:
        entry = _choose(subject, records, select)
        if chosen := entry["chosen"]:  # trial 0 is the default, whose cells are in the plan
            best = [subject.cell(subject.first.setup, chosen, c.seed, "tuned") for c in subject.cells]
            entry["keys"]["tuned"] = [cell.key for cell in best]
            plan.cells += best
        found.append(entry)
    return plan, found


def _trial(subject: Subject, number: int) -> list[Cell]:
    seeds = TUNING_SEEDS[: len(subject.cells)]
    return [subject.cell(subject.setup, number, seed, "trial") for seed in seeds]


def _subjects(base: Plan, asked: Sequence[Request], trials: int) -> list[Subject]:
    """The cells of a plan gathered over seeds, with their trials."""
    together: dict[Hashable, list[Cell]] = {}
    for cell in base.cells:
        configuration = (cell.algorithm.name, repr(cell.config), cell.lr, cell.optimizer)
        # repr: configurations are dictionaries, which are not hashable
        together.setdefault((id(cell.setup), *configuration, cell.experiment), []).append(cell)
    setups: dict[int, TaskSetup] = {}
    out = []
    for cells in together.values():
        first = cells[0]
        # one validation setup per task, shared by its algorithms, so that its split is made and read once
        setup = setups.setdefault(id(first.setup), replace(first.setup, validation=True, _data={}))
        axes = axes_of(first, asked)
        subject = Subject(cells, setup, axes, [{}, *draw(axes, trials - 1, first.algorithm.name)])
        if not axes:
            subject.reason = "it declares no range that is still free"
        else:
            try:  # a validation split that cannot be made is known before any trial is run
                for seed in TUNING_SEEDS[: len(cells)]:
                    setup.dataset(seed)
            except UsageError as error:
                subject.reason = str(error)
        out.append(subject)
    return out


def _choose(subject: Subject, records: Mapping[str, Record], select: str) -> Tuning:
    """What was found: the best trial is chosen, the earliest of those that tie."""
    numbers = range(0 if subject.reason else len(subject.changes))
    runs = [[records.get(cell.key) for cell in _trial(subject, number)] for number in numbers]
    scores = [_mean(trial, select) for trial in runs]
    reason, chosen = subject.reason, 0
    known = [s for s in scores if s is not None]
    if known:
        # index() is the earliest of equal scores: a tie with trial 0 keeps the default
        chosen = scores.index(_best(known, select))
    elif not reason:
        reason = f"no trial has {select}; --select names another metric"
    spreads = {m: _spread([_mean(trial, m) for trial in runs], m) for m in (select, *SPREAD)}
    keys = [cell.key for cell in subject.cells]
    return {
        "algorithm": subject.first.algorithm.name,
        "task": subject.first.setup.name,
        "experiment": subject.first.experiment,
        "select": select,
        "seeds": list(TUNING_SEEDS[: len(subject.cells)]),
        "space": {axis.name: [axis.low, axis.high] for axis in subject.axes},
        "trials": [Trial(changes=c, score=s) for c, s in zip(subject.changes, scores, strict=False)],
        "chosen": chosen,
        "changes": subject.changes[chosen],
        "spread": {m: spread for m, spread in spreads.items() if spread},
        "reason": reason,
        "keys": {"default": keys, "tuned": keys},
    }


def _mean(trial: Iterable[Record | None], metric: str) -> float | None:
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
