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
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import trim_mean

from xpo_bench.compare.baselines import Baseline, Cell
from xpo_bench.compare.cell_tests import (
    Compared,
    Margins,
    compare_seeds,
    unjudged,
)
from xpo_bench.compare.document import AlgorithmTest, CellRow, Document, MetricTest, RunAbout, SourceChange
from xpo_bench.compare.margins import MARGINS
from xpo_bench.compare.matching import Match, Pairing, pair_cells
from xpo_bench.compare.verdicts import QUARTER, SEEDS, TASKS, Verdict, judge, judge_exact, worst
from xpo_bench.metrics.registry import better
from xpo_bench.runner.store import SCHEMA
from xpo_bench.statistics import ALPHA, Difference, holm, sign_flip

HEADLINES = (
    "attained_1",
    "attained",
    "gold_reward",
    "gold_gain",
    "win_rate",
    "heldout_reward_accuracy",
    "reward_accuracy",
)
"""The metric that stands for a task in the test over tasks: the first that it has in both runs."""


def find_regressions(
    base: Baseline,
    new: Baseline,
    margins: Margins = MARGINS,
    *,
    match: Match = "configuration",
    same_source: bool = False,
    seed: int = 0,
) -> Document:
    """The document of a comparison.

    Args:
        match: `configuration` compares cells of equal settings. `algorithm` also compares an algorithm under
            changed settings, which are named; metrics with no better side then decide nothing.
        same_source: an algorithm or a task of another source is undecided, whatever its numbers.
        seed: of the draws of signs, where there are too many to try all.

    Returns:
        `verdict` (`pass`, `regression` or `undecided`); `cells`, one per algorithm x task with its verdict,
        what was changed and what is wrong with it; `tests`, one per metric of them; `algorithms`, the tests
        over tasks; `comparisons`, how many p-values were corrected for; `platforms`, what differs between
        the machines; `sources`, the plugins whose source differs, and `unknown_sources`, how many cells have
        a record that is older than digests of sources.
    """
    pairings = pair_cells(base, new, match)
    cells = [_compared(pairing, base, new, margins, same_source) for pairing in pairings]
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
    both = [pairing for pairing in pairings if pairing.before and pairing.after]
    return {
        "schema": SCHEMA,
        "verdict": "regression" if "regression" in every else "undecided" if "undecided" in every else "pass",
        "match": match,
        "base": _about(base),
        "new": _about(new),
        "platforms": _platforms(base.all_cells, new.all_cells),
        "sources": _sources(both, [cell.row for cell in cells]),
        "unknown_sources": sum(map(_lacks_source, both)),
        "comparisons": sum(p is not None for p in _p_values(tests, algorithms)),
        "cells": [cell.row for cell in cells],
        "tests": tests,
        "algorithms": algorithms,
    }


def _about(run: Baseline) -> RunAbout:
    return {
        "name": run.name,
        "cells": len(run.records),
        "versions": _versions(run.all_cells),
        "left_out": run.damaged,
        "superseded": run.superseded,
    }


def _versions(cells: Iterable[Cell]) -> list[str]:
    return sorted({cell.version for cell in cells})


def _compared(
    pairing: Pairing, base: Baseline, new: Baseline, margins: Margins, same_source: bool
) -> Compared:
    """A row of the document; what only the new run has is told and decides nothing."""
    if pairing.missing:
        return unjudged(pairing).find("undecided", pairing.missing)
    if not pairing.before:
        return unjudged(pairing).find("same", "new: nothing to compare with")
    found = compare_seeds(pairing, base, new, margins)
    if same_source and found.row["sources"]:
        found.find("undecided", f"another source of the {' and of the '.join(found.row['sources'])}")
    return found


def _sources(pairings: Sequence[Pairing], rows: Sequence[CellRow]) -> list[SourceChange]:
    """Every algorithm and task with another source, once, in the order of names."""
    changed = {row["cell"]: row["sources"] for row in rows}
    out: dict[tuple[str, str], SourceChange] = {}
    for kind in ("algorithm", "task"):
        for pairing in pairings:
            name = pairing.first.algorithm if kind == "algorithm" else pairing.first.task
            if kind in changed[pairing.name] and (kind, name) not in out:
                old, new = _versions(pairing.before.values()), _versions(pairing.after.values())
                out[kind, name] = {"kind": kind, "name": name, "base": old, "new": new}
    return [out[place] for place in sorted(out)]


def _lacks_source(pairing: Pairing) -> bool:
    return any(
        cell.sources["algorithm"] is None and not cell.trained_elsewhere
        for side in (pairing.before, pairing.after)
        for cell in side.values()
    )


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
        # A task on which seeds change nothing has one run, however many seeds it is given.
        seeds.append(cell.row["seeds"] if cell.exact else len(moves.differences))
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
    if row["informative"]:
        return "moved" if abs(row["difference"]) > row["margin"] else "equivalent"
    if row["exact"]:
        return judge_exact(row["metric"], row["difference"], row["margin"], row["better"])
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
