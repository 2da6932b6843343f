"""`--protocol tuned`: every algorithm gets as many trials, and runs at the one that validates best.

Trial 0 is the configuration as it was asked for; the others are points of a scrambled Sobol sequence over the
algorithm's search space and its learning rate. Trials train on the training rows without a validation split,
at seeds that are not reported; what is reported is trained on all training rows at the run's own seeds.

One such search is a study. Another draw of trials, scored at other seeds, may choose another configuration;
with several studies each chooses its own, and the spread between them is part of what is reported.
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
from xpo_bench.runner.run_document import Study, Trial, Tuning
from xpo_bench.runner.search.space import LR, Axis, axes_of, draw
from xpo_bench.runner.settings import swept, validate
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.runner.words import Request

TRIALS = 16
"""Trials of an algorithm on a task, its default among them."""
SELECT = "heldout_reward_accuracy"
"""By what a trial is chosen: whatever learns from pairs has it, and it asks for no test set and no truth."""
TUNING_SEEDS = (1_000_000, 1_000_001, 1_000_002)
"""Seeds of the trials of the first study, as many of them as the run has seeds, three at most; those of the
next study follow them.
"""
SPREAD = (SELECT, "frontier_gap", "kl")
"""Metrics whose spread over the trials is kept, besides that of the selection."""


@dataclass(frozen=True)
class StudyTrials:
    """One study: its number, what each trial changes, and the seeds that trials are scored at."""

    study: int
    changes: list[dict[str, float]]
    seeds: tuple[int, ...]


def tuning_seeds(study: int, count: int) -> tuple[int, ...]:
    """The seeds at which a study scores its trials, in a run of `count` seeds."""
    return tuple(seed + study * len(TUNING_SEEDS) for seed in TUNING_SEEDS[:count])


@dataclass
class Subject:
    """One algorithm on one task: its cells as they were asked for, and its studies."""

    cells: list[Cell]
    setup: TaskSetup
    axes: list[Axis]
    studies: list[StudyTrials]
    reason: str | None = None

    @property
    def first(self) -> Cell:
        return self.cells[0]

    def cell(self, study: StudyTrials, number: int, seed: int, role: Literal["trial", "tuned"]) -> Cell:
        """The cell of a trial's configuration at a seed."""
        first, changes = self.first, dict(study.changes[number])
        setup = self.setup if role == "trial" else first.setup
        lr = changes.pop(LR, first.lr)
        algorithm = validate(type(first.algorithm), {**first.config, **changes}, first.algorithm.name)
        # tables leave out experiments whose name ends in "search"
        experiment = " ".join(
            filter(None, (first.experiment, "tuned search" if role == "trial" else "tuned"))
        )
        protocol: Protocol = {"name": "tuned", "role": role, "trial": number, "study": study.study}
        return make_cell(setup, algorithm, first.info, (lr, first.optimizer), seed, experiment, protocol)


def check(trials: int, select: str, studies: int = 1) -> None:
    """Refuse numbers of trials and studies, and metrics that nothing can be chosen by.

    Raises:
        UsageError: in one line.
    """
    if trials < 1:
        raise UsageError(
            f"--trials {trials}: want at least 1, the default configuration; {TRIALS} by default"
        )
    if studies < 1:
        raise UsageError(f"--studies {studies}: want at least 1, a single search; 1 by default")
    metric = find_metric(select.removeprefix("heldout_"))
    if not select.startswith("heldout_") or metric is None or metric.better is None:
        raise UsageError(
            f"--select {select}: want a heldout_ metric with a preferred direction, such as {SELECT}; "
            "in a trial it is taken on the validation split"
        )


Run = Callable[[Plan], Sequence[Record]]
"""Executes a plan and returns its records."""


def find(
    base: Plan,
    asked: Sequence[Request],
    trials: int,
    select: str,
    run: Run,
    note: Callable[[str], None],
    studies: int = 1,
) -> tuple[Plan, list[Tuning]]:
    """Run all trials of a plan and choose, in each study by itself.

    Returns:
        the plan of what is reported, the cells of `base` and those of the chosen configurations; and what was
        found for every algorithm on every task.

    Raises:
        UsageError: a sweep, or a reported seed that is one of the trials'.
    """
    for request in asked:
        if field := swept(request.settings):
            raise UsageError(f"--protocol tuned searches at one setting: give {field} one value")
    first, last = TUNING_SEEDS[0], tuning_seeds(studies - 1, len(TUNING_SEEDS))[-1]
    if any(first <= cell.seed <= last for cell in base.cells):
        raise UsageError(f"--seeds: {first} to {last} are the seeds of the trials; report others")
    subjects = _subjects(base, asked, trials, studies)
    cells: dict[str, Cell] = {}
    for subject in subjects:
        if subject.reason:
            default = subject.first
            note(f"{default.algorithm.name} on {default.setup.name}: default only: {subject.reason}")
            continue
        for study in subject.studies:
            for number in range(len(study.changes)):
                for cell in _trial(subject, study, number):
                    cells.setdefault(cell.key, cell)
    if cells:
        of = f"{trials} trials" + (f" in each of {studies} studies" if studies > 1 else "")
        note(f"tuned: {len(cells)} cells of {of}, chosen by {select} on validation splits")
    records = {r["key"]: r for r in run(Plan(list(cells.values())))} if cells else {}
    plan, found = Plan(list(base.cells), base.skipped, base.unreachable), []
    tuned: dict[str, Cell] = {}  # two studies may choose one configuration
    for subject in subjects:
        chosen = [_choose(subject, study, records, select) for study in subject.studies]
        for study, entry in zip(subject.studies, chosen, strict=True):
            if number := entry["chosen"]:  # trial 0 is the default, whose cells are in the plan
                best = [subject.cell(study, number, c.seed, "tuned") for c in subject.cells]
                entry["keys"] = [cell.key for cell in best]
                tuned |= {cell.key: cell for cell in best if cell.key not in tuned}
        found.append(_tuning(subject, chosen, records, select))
    plan.cells += tuned.values()
    return plan, found


def _trial(subject: Subject, study: StudyTrials, number: int) -> list[Cell]:
    return [subject.cell(study, number, seed, "trial") for seed in study.seeds]


def _studies(axes: Sequence[Axis], name: str, trials: int, studies: int, seeds: int) -> list[StudyTrials]:
    """The studies of an algorithm; more of them begin with the same ones."""
    return [
        StudyTrials(
            k,
            # another scrambling of the sequence: points that are balanced by themselves, and independent
            [{}, *draw(axes, trials - 1, f"{name} study {k}" if k else name)],
            tuning_seeds(k, seeds),
        )
        for k in range(studies)
    ]


def _subjects(base: Plan, asked: Sequence[Request], trials: int, studies: int) -> list[Subject]:
    """The cells of a plan gathered over seeds, with their studies."""
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
        planned = _studies(axes, first.algorithm.name, trials, studies, len(cells))
        subject = Subject(cells, setup, axes, planned)
        if not axes:
            subject.reason = "it declares no range that is still free"
        else:
            try:  # a validation split that cannot be made is known before any trial is run
                for study in planned:
                    for seed in study.seeds:
                        setup.dataset(seed)
            except UsageError as error:
                subject.reason = str(error)
        out.append(subject)
    return out


def _runs(subject: Subject, study: StudyTrials, records: Mapping[str, Record]) -> list[list[Record | None]]:
    """The records of every trial of a study, one per seed."""
    numbers = range(0 if subject.reason else len(study.changes))
    return [[records.get(cell.key) for cell in _trial(subject, study, number)] for number in numbers]


def _choose(subject: Subject, study: StudyTrials, records: Mapping[str, Record], select: str) -> Study:
    """What a study found: the best trial is chosen, the earliest of those that tie."""
    scores = [_mean(trial, select) for trial in _runs(subject, study, records)]
    reason, chosen = subject.reason, 0
    known = [s for s in scores if s is not None]
    if known:
        # index() is the earliest of equal scores: a tie with trial 0 keeps the default
        chosen = scores.index(_best(known, select))
    elif not reason:
        reason = f"no trial has {select}; --select names another metric"
    return {
        "seeds": list(study.seeds),
        "trials": [Trial(changes=c, score=s) for c, s in zip(study.changes, scores, strict=False)],
        "chosen": chosen,
        "changes": study.changes[chosen],
        "reason": reason,
        "keys": [cell.key for cell in subject.cells],
    }


def _tuning(subject: Subject, studies: list[Study], records: Mapping[str, Record], select: str) -> Tuning:
    """What was found for a subject: what the first study did, all of them, and the spread over all trials."""
    runs = [trial for study in subject.studies for trial in _runs(subject, study, records)]
    spreads = {m: _spread([_mean(trial, m) for trial in runs], m) for m in (select, *SPREAD)}
    first = studies[0]
    return {
        "algorithm": subject.first.algorithm.name,
        "task": subject.first.setup.name,
        "experiment": subject.first.experiment,
        "select": select,
        "seeds": first["seeds"],
        "space": {axis.name: [axis.low, axis.high] for axis in subject.axes},
        "trials": first["trials"],
        "chosen": first["chosen"],
        "changes": first["changes"],
        "spread": {m: spread for m, spread in spreads.items() if spread},
        "reason": next((study["reason"] for study in studies if study["reason"]), None),
        "keys": {
            "default": [cell.key for cell in subject.cells],
            "tuned": list(dict.fromkeys(key for study in studies for key in study["keys"])),
        },
        "studies": studies,
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
