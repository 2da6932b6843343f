"""How often verdicts are wrong, and how often they find what is there: `python -m benchmarks.verdicts`.

Null study: copies of DPO under other names, drawn from one pool of real runs so that no two of them share a
run. Every "better" or "worse" is false. Power study: DPO against a copy that earns some per cent less, with
the frequency that `--plan-seeds` predicts from the spread of the pool.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xpo_bench
from xpo_bench.report.items import item_reader
from xpo_bench.report.runs import group
from xpo_bench.report.tables.versus import against
from xpo_bench.report.verdicts.task import verdict_on
from xpo_bench.verdicts.words import power

METRIC = "attained_1"
LOSSES = (0.05, 0.1, 0.2)
SEEDS = (3, 5, 10)
FEW = {"overfit_pair": 5}
"""Runs of tasks that are judged by whether they stop, where no draw decides."""


def pool(tasks: Sequence[str], seeds: int, steps: int | None, out: Path) -> list[dict[str, Any]]:
    """Records of DPO on every task at so many seeds."""
    words: dict[str, Any] = {} if steps is None else {"steps": steps}
    found: list[dict[str, Any]] = []
    for task in tasks:
        cells = xpo_bench.run(["dpo"], [task], seeds=min(seeds, FEW.get(task, seeds)), out=out, **words).cells
        found += [dict(cell) for cell in cells]
    return found


def renamed(record: dict[str, Any], name: str, seed: int, factor: float = 1.0) -> dict[str, Any]:
    """A record of the pool as that of another algorithm at another seed, its headline times a factor."""
    metrics = dict(record["metrics"])
    if METRIC in metrics:
        metrics[METRIC] *= factor
    return {**record, "algorithm": {**record["algorithm"], "name": name}, "seed": seed, "metrics": metrics}


def null(
    records: Sequence[dict[str, Any]], out: Path, copies: int, seeds: int, repetitions: int
) -> dict[str, float]:
    """Fractions of repetitions in which some verdict is false: against a baseline, and in the best set."""
    rng, items = np.random.default_rng(0), item_reader(out)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_task.setdefault(record["task"]["name"], []).append(record)
    versus = best = either = 0
    for _ in range(repetitions):
        drawn = []
        for of_task in by_task.values():
            enough = len(of_task) >= copies * seeds
            order = rng.choice(len(of_task), (copies, seeds), replace=not enough)
            drawn += [
                renamed(of_task[i], f"copy{c:02}", s)
                for c, row in enumerate(order)
                for s, i in enumerate(row)
            ]
        groups = group(drawn)
        rows = against(groups, "copy00", items)
        first = any(row.verdict.word in ("better", "worse") for row in rows)
        verdicts = [verdict_on(t, [g for g in groups if g.task == t], items) for t in by_task]
        second = any(row.said == "worse" for v in verdicts for row in v.rows)
        versus, best, either = versus + first, best + second, either + (first or second)
    return {
        name: n / repetitions for name, n in (("baseline", versus), ("best set", best), ("either", either))
    }


def found(
    records: Sequence[dict[str, Any]], out: Path, loss: float, seeds: int, repetitions: int
) -> dict[str, float]:
    """How often a copy that earns less is called worse, and the power that the pool's spread predicts."""
    rng, items = np.random.default_rng(1), item_reader(out)
    values = np.array([r["metrics"][METRIC] for r in records])
    # two independent runs: the spread of their difference is that of both
    spread = math.sqrt(values.var(ddof=1) * (1 + (1 - loss) ** 2))
    worse = 0
    for _ in range(repetitions):
        order = rng.permutation(len(records))[: 2 * seeds].reshape(2, seeds)
        drawn = [renamed(records[i], "dpo", s) for s, i in enumerate(order[0])]
        drawn += [renamed(records[i], "less", s, 1 - loss) for s, i in enumerate(order[1])]
        (row,) = against(group(drawn), "dpo", items)
        worse += row.verdict.word == "worse"
    return {
        "loss": loss,
        "seeds": seeds,
        "effect": loss * float(values.mean()),
        "spread": spread,
        "found": worse / repetitions,
        "predicted": power(loss * float(values.mean()), spread, seeds),
    }


def main() -> None:
    """Run both studies and print them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=200, help="runs per task that copies are drawn from")
    parser.add_argument("--tasks", default="bandit,travel,overfit_pair")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp()) / "pool"
    records = pool(given.tasks.split(","), given.pool, given.steps, out)
    known = [r for r in records if METRIC in r["metrics"]]
    document: dict[str, Any] = {
        f"null, {n} seeds": null(records, out, given.copies, n, given.repetitions) for n in (given.seeds, 3)
    }
    document |= {
        "power": [found(known, out, loss, n, 5 * given.repetitions) for loss in LOSSES for n in SEEDS],
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
