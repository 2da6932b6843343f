"""Two runs of the same cells: has an algorithm become worse, or does it end elsewhere?

Where both sides were made on one platform and every metric of every common seed is the same to the last bit,
that is said and nothing is tested. Otherwise every judged metric of every algorithm x task is tested by
itself (`verdicts.judge`), and with five seeds of four tasks each algorithm over all of them at once
(`verdicts.sign_flip`); p-values are corrected by Holm's method for how many tests there are. Throughput is
shown and never judged: seconds of two days do not compare.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from xpo_bench.compare.baselines import CURVES, Baseline, canonical, identity, platform
from xpo_bench.compare.margins import MARGINS, Margin
from xpo_bench.compare.verdicts import QUARTER, SEEDS, TASKS, judge
from xpo_bench.metrics.registry import better
from xpo_bench.report.records import COUNTED
from xpo_bench.report.records import Raw as Record
from xpo_bench.runner.store import SCHEMA
from xpo_bench.statistics import ALPHA, Difference, difference, holm, sign_flip

Row = dict[str, Any]
ORDER = ("regression", "undecided", "improved", "equivalent", "same")
PATH_SHARE = 0.2
"""Share of the points of a curve that have to lie beyond the margin for it to have gone elsewhere."""


def compare(
    base: Baseline, new: Baseline, margins: Mapping[str, Margin] = MARGINS, seed: int = 0
) -> dict[str, Any]:
    """The document of a comparison.

    Args:
        seed: of the draws of signs, where there are too many to try all.

    Returns:
        `verdict` (`pass`, `regression` or `undecided`); `cells`, one per algorithm x task with its verdict
        and what is wrong with it; `tests`, one per metric of them; `algorithms`, the tests over tasks;
        `comparisons`, how many p-values were corrected for; `throughput`; `platforms`, what differs between
        the machines.
    """
    before, after = base.cells(), new.cells()
    cells, tests = [], []
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after:
            cell, found = _cell(before[name], after[name], base, new, margins)
            tests += found
        else:
            cell = _alone(name, before, after)
        cells.append(cell)
    cells = [cell for cell in cells if cell]
    algorithms = _algorithms([c for c in cells if "differences" in c], margins, np.random.default_rng(seed))
    _decide(tests, algorithms, margins)
    for cell in cells:
        own = [test["verdict"] for test in tests if test["cell"] == cell["cell"]]
        cell["verdict"] = min([*own, cell["verdict"]], key=ORDER.index)
        cell.pop("differences", None)
    every = [cell["verdict"] for cell in cells] + [row["verdict"] for row in algorithms]
    verdict = "regression" if "regression" in every else "undecided" if "undecided" in every else "pass"
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "base": _about(base),
        "new": _about(new),
        "platforms": _platforms(base.records, new.records),
        "comparisons": sum(row["p"] is not None for row in (*tests, *algorithms)),
        "cells": cells,
        "tests": tests,
        "algorithms": algorithms,
    }


def _about(side: Baseline) -> dict[str, Any]:
    versions = sorted(
        {
            str(r["algorithm"].get("distribution")) + " " + str(r["algorithm"].get("version"))
            for r in side.records
        }
    )
    return {"name": side.name, "cells": len(side.records), "versions": versions, "left_out": side.damaged}


def _label(record: Record) -> dict[str, Any]:
    return {
        "algorithm": record["algorithm"]["name"],
        "task": record["task"]["name"],
        "experiment": record.get("experiment"),
    }


# --------------------------------------------------------------------------- one algorithm on one task


def _cell(
    before: Mapping[int, Record],
    after: Mapping[int, Record],
    base: Baseline,
    new: Baseline,
    margins: Mapping[str, Margin],
) -> tuple[Row, list[Row]]:
    """The verdict on what is wrong with the cells as such, and the tests of their metrics."""
    first = next(iter(before.values()))
    name = canonical(identity(first))
    seeds = sorted(before.keys() & after.keys())
    cell: Row = {"cell": name, **_label(first), "seeds": len(seeds), "verdict": "same", "reasons": []}
    if not seeds:
        return cell | _undecided(f"no seed in common ({_list(before)} and {_list(after)})"), []
    gone = sorted(before.keys() - after.keys())
    if gone:
        cell |= _undecided(f"seed {_list(gone)} is missing from the new run")
    for what, told in (("task version", lambda r: r["task"].get("version")), ("data", _data)):
        odd = [s for s in seeds if told(before[s]) != told(after[s])]
        if odd:
            return cell | _undecided(f"cannot be compared: another {what} at seed {_list(odd)}"), []
    worse = [s for s in seeds if _rank(after[s]) > _rank(before[s])]
    if worse:
        changes = ", ".join(f"{before[s]['status']} → {after[s]['status']} at seed {s}" for s in worse[:3])
        cell |= {"verdict": "regression", "reasons": [*cell["reasons"], changes]}
    both = [s for s in seeds if before[s]["status"] in COUNTED and after[s]["status"] in COUNTED]
    if not both:
        return cell if worse else cell | _undecided("no cell is ok on both sides"), []
    vanished = sorted(
        {m for s in both for m in before[s]["metrics"].keys() - after[s]["metrics"].keys() if m in margins}
    )
    if vanished:
        cell |= _undecided(f"{', '.join(vanished)}: not in the new run")
    cell["throughput"] = _throughput([before[s] for s in both], [after[s] for s in both])
    cell["one_platform"] = all(platform(before[s]) == platform(after[s]) for s in both)
    judged = {m: v for m in margins if (v := _differences(m, before, after, both))}
    changed = [m for m, (_, values) in judged.items() if any(values)]
    cell["identical"] = not changed
    cell["differences"] = judged
    if not changed:
        return cell, []
    tests = [_test(cell, m, *judged[m], margins[m]) for m in judged]
    paths = [
        path
        for m in CURVES
        if m in margins and (path := _path(m, both, before, after, base, new, margins[m]))
    ]
    cell["paths"] = paths
    for path in paths:
        if path["share"] >= PATH_SHARE:
            cell |= _undecided(
                f"the curve of {path['metric']} goes elsewhere from step {path['step']} on"
            ) | ({"verdict": cell["verdict"]} if cell["verdict"] == "regression" else {})
    return cell, tests


def _undecided(reason: str) -> Row:
    return {"verdict": "undecided", "reasons": [reason]}


def _list(seeds: Any) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _data(record: Record) -> Any:
    return (record["task"].get("data") or {}).get("fingerprint")


def _rank(record: Record) -> int:
    """How bad a status is: what diverges where that is expected is as good as ok."""
    status = record["status"]
    expected = status == "diverged" and record["task"].get("expected_divergence")
    return 0 if status == "ok" or expected else 1 if status == "diverged" else 2


def _differences(
    metric: str, before: Mapping[int, Record], after: Mapping[int, Record], seeds: Sequence[int]
) -> tuple[float, list[float]] | None:
    """The base's mean, and new minus base of every common seed that has the metric on both sides."""
    pairs = [(before[s]["metrics"].get(metric), after[s]["metrics"].get(metric)) for s in seeds]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return (statistics.fmean(a for a, _ in known), [b - a for a, b in known]) if known else None


def _test(cell: Row, metric: str, base: float, values: Sequence[float], margin: Margin) -> Row:
    found = difference(values, better(metric))
    return {
        "cell": cell["cell"],
        "algorithm": cell["algorithm"],
        "task": cell["task"],
        "experiment": cell["experiment"],
        "metric": metric,
        "better": better(metric),
        "base": base,
        "difference": found.mean,
        "ci95": None if found.low is None else [found.low, found.high],
        "iqm": float(trim_mean(values, 0.25)),
        "margin": margin.at(base),
        "p": found.p,
        "n": found.n,
    }


def _path(
    metric: str,
    seeds: Sequence[int],
    before: Mapping[int, Record],
    after: Mapping[int, Record],
    base: Baseline,
    new: Baseline,
    margin: Margin,
) -> Row | None:
    """Where the curves of a metric part: the share of their common points that are told apart beyond the
    margin.
    """
    olds, news = (
        [{row["step"]: row for row in side.curves.get(cells[s]["key"], [])} for s in seeds]
        for side, cells in ((base, before), (new, after))
    )
    steps = sorted(set.intersection(*map(set, [*olds, *news])))
    beyond, points = [], 0
    for step in steps:
        pairs = [
            (old[step].get(metric), later[step].get(metric)) for old, later in zip(olds, news, strict=True)
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if len(known) < 2 or step == 0:
            continue
        points += 1
        found = difference([b - a for a, b in known], None)
        allowed = margin.at(statistics.fmean(a for a, _ in known))
        if abs(found.mean) > allowed and found.p is not None and found.p * len(steps) < ALPHA:
            beyond.append(step)
    return (
        {"metric": metric, "points": points, "share": len(beyond) / points, "step": beyond[0]}
        if beyond
        else None
    )


def _throughput(before: Sequence[Record], after: Sequence[Record]) -> Row | None:
    """Median training pairs per second of both sides, for information."""
    found = [[v for r in side if (v := r["metrics"].get("pairs_per_s"))] for side in (before, after)]
    return {"base": statistics.median(found[0]), "new": statistics.median(found[1])} if all(found) else None


def _alone(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Row:
    """A cell that one side has: gone, new, or there under other settings, which are named."""
    ours, others = (before, after) if name in before else (after, before)
    first: Record = next(iter(ours[name].values()))
    mine = identity(first)
    twins = []
    for other, records in others.items():
        theirs = identity(next(iter(records.values())))
        same = all(theirs[part] == mine[part] for part in ("algorithm", "task", "experiment"))
        if same and other not in ours:
            twins.append(theirs)
    if name not in before:
        return (
            {}
            if twins
            else {
                "cell": name,
                **_label(first),
                "seeds": 0,
                "verdict": "same",
                "reasons": ["new: nothing to compare with"],
            }
        )
    reason = "missing from the new run"
    if len(twins) == 1:
        reason = f"cannot be compared: {_first_difference(mine, twins[0])}"
    return {"cell": name, **_label(first), "seeds": 0, **_undecided(reason)}


def _first_difference(a: Any, b: Any, at: str = "") -> str:
    """The first setting that differs, `budget.steps 200 → 300`."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in sorted(a.keys() | b.keys()):
            if a.get(name) != b.get(name):
                return _first_difference(a.get(name), b.get(name), f"{at}.{name}" if at else name)
    return f"{at} {a} → {b}"


# --------------------------------------------------------------------------- an algorithm over tasks


def _algorithms(cells: Sequence[Row], margins: Mapping[str, Margin], rng: np.random.Generator) -> list[Row]:
    """The sign-flip test of every algorithm whose numbers differ, on the metric of each task that says most.

    Every difference is one seed of one task, from what is worse, in units of its margin.
    """
    out = []
    for name in sorted({cell["algorithm"] for cell in cells}):
        own = [cell for cell in cells if cell["algorithm"] == name]
        if all(cell["identical"] for cell in own):
            continue
        values: list[float] = []
        tasks, seeds = set(), []
        for cell in own:
            headline = next((m for m in HEADLINES if m in cell["differences"]), None)
            if headline is None:
                continue
            base, differences = cell["differences"][headline]
            sign = 1 if better(headline) == "lower" else -1
            scale = margins[headline].at(base) or math.inf
            values += [sign * d / scale for d in differences]
            tasks.add((cell["task"], cell["experiment"]))
            seeds.append(len(differences))
        enough = len(tasks) >= TASKS and min(seeds, default=0) >= SEEDS
        out.append(
            {
                "algorithm": name,
                "tasks": len(tasks),
                "seeds": min(seeds, default=0),
                "mean": statistics.fmean(values) if values else None,
                "iqm": float(trim_mean(values, 0.25)) if values else None,
                "p": sign_flip(values, rng) if enough else None,
            }
        )
    return out


HEADLINES = ("frontier_gap", "gold_gain", "heldout_reward_accuracy", "reward_accuracy", "regret")
"""What a task says most by, the first that it has."""


def _decide(tests: Sequence[Row], algorithms: Sequence[Row], margins: Mapping[str, Margin]) -> None:
    """Correct all p-values together, and give every test its verdict."""
    with_p = [row for row in (*tests, *algorithms) if row["p"] is not None]
    for row, adjusted in zip(with_p, holm([row["p"] for row in with_p]), strict=True):
        row["p_holm"] = adjusted
    for row in tests:
        low, high = row["ci95"] or (None, None)
        found = Difference(row["difference"], low, high, row["p"], row["n"])
        row["verdict"] = (
            "same"
            if row["difference"] == 0 and low == high
            else judge(found, row["margin"], row["better"], row.get("p_holm"))
        )
    for row in algorithms:
        worse = row["mean"] is not None and row["mean"] > QUARTER
        row["verdict"] = "regression" if worse and row.get("p_holm", 1.0) < ALPHA else "equivalent"


def _platforms(before: Sequence[Record], after: Sequence[Record]) -> list[str]:
    """What differs between the machines and versions of two sides, `torch 2.13.0 → 2.14.0`."""
    out = []
    facts = [[platform(record) for record in side] for side in (before, after)]
    for name in facts[0][0]:
        old, new = (sorted({str(f[name]) for f in side}) for side in facts)
        if old != new:
            out.append(f"{name} {', '.join(old)} → {', '.join(new)}")
    return out
