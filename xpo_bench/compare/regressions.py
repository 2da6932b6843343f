"""Two runs of the same cells: has an algorithm become worse, or does it end elsewhere?

Where both runs were made on one platform and every metric of every common seed is the same to the last bit,
the comparison says so and tests nothing. Otherwise it tests every judged metric of every algorithm x task by
itself (`verdicts.judge`), and with five seeds of four tasks each algorithm over all of them at once
(`statistics.sign_flip`); p-values are corrected by Holm's method for the number of tests. Throughput is shown
and never judged: seconds of two days do not compare.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
from scipy.stats import trim_mean

from xpo_bench.compare.baselines import Baseline, Cell
from xpo_bench.compare.cell_tests import (
    CellRow,
    Compared,
    Margins,
    MetricTest,
    Seeds,
    compare_seeds,
    unjudged,
)
from xpo_bench.compare.margins import MARGINS
from xpo_bench.compare.verdicts import QUARTER, SEEDS, TASKS, Verdict, judge, worst
from xpo_bench.metrics.registry import better
from xpo_bench.runner.store import SCHEMA
from xpo_bench.statistics import ALPHA, Difference, holm, sign_flip

HEADLINES = ("frontier_gap", "gold_gain", "heldout_reward_accuracy", "reward_accuracy", "regret")
"""The metric that stands for a task in the test over tasks: the first that it has."""


class RunAbout(TypedDict):
    """One of the two runs."""

    name: str
    cells: int
    versions: list[str]
    left_out: list[str]


class AlgorithmTest(TypedDict, total=False):
    """The sign-flip test of one algorithm over tasks, in margins; above 0 is worse."""

    algorithm: str
    tasks: int
    seeds: int
    mean: float | None
    iqm: float | None
    p: float | None
    p_holm: float
    verdict: Verdict


class Document(TypedDict):
    """What `xpo-bench compare --json` prints."""

    schema: int
    verdict: Literal["regression", "undecided", "pass"]
    base: RunAbout
    new: RunAbout
    platforms: list[str]
    comparisons: int
    cells: list[CellRow]
    tests: list[MetricTest]
    algorithms: list[AlgorithmTest]


def find_regressions(base: Baseline, new: Baseline, margins: Margins = MARGINS, seed: int = 0) -> Document:
    """The document of a comparison.

    Args:
        seed: of the draws of signs, where there are too many to try all.

    Returns:
        `verdict` (`pass`, `regression` or `undecided`); `cells`, one per algorithm x task with its verdict
        and what is wrong with it; `tests`, one per metric of them; `algorithms`, the tests over tasks;
        `comparisons`, how many p-values were corrected for; `platforms`, what differs between the machines.
    """
    cells = _cells(base, new, margins)
    tests = [test for cell in cells for test in cell.tests]
    algorithms = _algorithms([c for c in cells if c.moves], margins, np.random.default_rng(seed))
    _correct(tests, algorithms)
    for row in tests:
        row["verdict"] = _metric_verdict(row)
    for over_tasks in algorithms:
        over_tasks["verdict"] = _algorithm_verdict(over_tasks)
    for cell in cells:
        cell.row["verdict"] = worst([*(test["verdict"] for test in cell.tests), cell.row["verdict"]])
    every = {cell.row["verdict"] for cell in cells} | {row["verdict"] for row in algorithms}
    return {
        "schema": SCHEMA,
        "verdict": "regression" if "regression" in every else "undecided" if "undecided" in every else "pass",
        "base": _about(base),
        "new": _about(new),
        "platforms": _platforms(base.all_cells, new.all_cells),
        "comparisons": sum(p is not None for p in _p_values(tests, algorithms)),
        "cells": [cell.row for cell in cells],
        "tests": tests,
        "algorithms": algorithms,
    }


def _about(run: Baseline) -> RunAbout:
    versions = sorted({cell.version for cell in run.all_cells})
    return {"name": run.name, "cells": len(run.records), "versions": versions, "left_out": run.damaged}


def _cells(base: Baseline, new: Baseline, margins: Margins) -> list[Compared]:
    """Every cell of either run, in the order of identities."""
    before, after = base.cells(), new.cells()
    out = []
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after:
            out.append(compare_seeds(before[name], after[name], base, new, margins))
        elif name in before:
            out.append(_missing(name, before, after))
        elif not _twins(after[name], before, after):  # with a twin, the twin's row names the difference
            first = next(iter(after[name].values()))
            out.append(unjudged(name, first, 0).find("same", "new: nothing to compare with"))
    return out


def _missing(name: str, before: Mapping[str, Seeds], after: Mapping[str, Seeds]) -> Compared:
    """A cell that the new run lacks; one there under other settings is named by the first that differs."""
    first = next(iter(before[name].values()))
    twins = _twins(before[name], after, before)
    reason = "missing from the new run"
    if len(twins) == 1:
        reason = f"cannot be compared: {_first_difference(first.identity, twins[0].identity)}"
    return unjudged(name, first, 0).find("undecided", reason)


def _twins(seeds: Seeds, others: Mapping[str, Seeds], own: Mapping[str, Seeds]) -> list[Cell]:
    """Cells that only the other run has, of the same algorithm, task and experiment."""
    cell = next(iter(seeds.values()))
    candidates = [next(iter(found.values())) for name, found in others.items() if name not in own]
    wanted = (cell.algorithm, cell.task, cell.experiment)
    return [c for c in candidates if (c.algorithm, c.task, c.experiment) == wanted]


def _first_difference(a: object, b: object, at: str = "") -> str:
    """The first setting that differs, `budget.steps 200 → 300`."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in sorted(a.keys() | b.keys()):
            if a.get(name) != b.get(name):
                return _first_difference(a.get(name), b.get(name), f"{at}.{name}" if at else name)
    return f"{at} {a} → {b}"


# --------------------------------------------------------------------------- an algorithm over tasks


def _algorithms(cells: Sequence[Compared], margins: Margins, rng: np.random.Generator) -> list[AlgorithmTest]:
    """The sign-flip test of every algorithm of which a number differs, in the order of names."""
    out = []
    for name in sorted({cell.row["algorithm"] for cell in cells}):
        own = [cell for cell in cells if cell.row["algorithm"] == name]
        if not all(cell.row["identical"] for cell in own):
            out.append(_over_tasks(name, own, margins, rng))
    return out


def _over_tasks(
    name: str, cells: Sequence[Compared], margins: Margins, rng: np.random.Generator
) -> AlgorithmTest:
    """Test one algorithm on the headline metric of each task, all seeds of all tasks together."""
    values: list[float] = []
    tasks, seeds = set(), []
    for cell in cells:
        metric = next((m for m in HEADLINES if m in cell.moves), None)
        if metric is None:
            continue
        moves = cell.moves[metric]
        # d / margin, signed so that above 0 is worse: metrics of different units share one scale
        sign = 1 if better(metric) == "lower" else -1
        scale = margins[metric].at(moves.base) or math.inf
        values += [sign * d / scale for d in moves.differences]
        tasks.add((cell.row["task"], cell.row["experiment"]))
        seeds.append(len(moves.differences))
    enough = len(tasks) >= TASKS and min(seeds, default=0) >= SEEDS
    return {
        "algorithm": name,
        "tasks": len(tasks),
        "seeds": min(seeds, default=0),
        "mean": statistics.fmean(values) if values else None,
        "iqm": float(trim_mean(values, 0.25)) if values else None,
        "p": sign_flip(values, rng) if enough else None,
    }


# --------------------------------------------------------------------------- verdicts


def _p_values(tests: Sequence[MetricTest], algorithms: Sequence[AlgorithmTest]) -> list[float | None]:
    return [*(test["p"] for test in tests), *(row["p"] for row in algorithms)]


def _correct(tests: Sequence[MetricTest], algorithms: Sequence[AlgorithmTest]) -> None:
    """Give every row with a p its p after Holm's correction over all of them."""
    # One family over metrics, cells and algorithms: the verdict is one, so its error rate is at most 5 %.
    adjusted = iter(holm([p for p in _p_values(tests, algorithms) if p is not None]))
    for test in tests:
        if test["p"] is not None:
            test["p_holm"] = next(adjusted)
    for row in algorithms:
        if row["p"] is not None:
            row["p_holm"] = next(adjusted)


def _metric_verdict(row: MetricTest) -> Verdict:
    low, high = row["ci95"] or (None, None)
    if row["difference"] == 0 and low == high:
        return "same"
    found = Difference(row["difference"], low, high, row["p"], row["n"])
    return judge(found, row["margin"], row["better"], row.get("p_holm"))


def _algorithm_verdict(row: AlgorithmTest) -> Verdict:
    worse = row["mean"] is not None and row["mean"] > QUARTER
    return "regression" if worse and row.get("p_holm", 1.0) < ALPHA else "equivalent"


def _platforms(before: Sequence[Cell], after: Sequence[Cell]) -> list[str]:
    """The differences between the machines and versions of two runs, `torch 2.13.0 → 2.14.0`."""
    out = []
    for name in before[0].platform:
        old, new = (sorted({str(cell.platform[name]) for cell in cells}) for cells in (before, after))
        if old != new:
            out.append(f"{name} {', '.join(old)} → {', '.join(new)}")
    return out
