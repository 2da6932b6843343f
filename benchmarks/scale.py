"""A run of many cells, its records written by hand: seconds of planning, resuming and showing it.

Example:
    python -m benchmarks.scale --cells 100000 --times 3 --out results/scale.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xpo_bench import plugins
from xpo_bench.metrics.registry import describe
from xpo_bench.runner import environment
from xpo_bench.runner.keys import canonical
from xpo_bench.runner.observers import facts
from xpo_bench.runner.plan import Plan, make_plan
from xpo_bench.runner.record import SCHEMA
from xpo_bench.runner.recording import cell_record
from xpo_bench.runner.request import requests
from xpo_bench.runner.store import Store
from xpo_bench.train.job import Outcome

SEEDS = 10
TASK = "one_pair"


def main() -> None:
    """Measure, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        found = measure(Path(scratch) / "run", asked.cells, asked.times)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", "utf-8")


def measure(root: Path, cells: int, times: int) -> dict[str, Any]:
    """Seconds of wall time of each, by what was done; the machine, and how many cells there were."""
    settings = max(1, cells // SEEDS // 2)
    plan, planning = _timed(lambda: _plan(settings), times)
    store = Store(root)
    _write(plan, store)
    left, resuming = _timed(lambda: [cell for cell in plan.cells if not store.done(cell.key)], times)
    if left:
        raise SystemExit(f"{len(left)} of {len(plan.cells)} cells are not found done")
    show = [sys.executable, "-m", "xpo_bench", "show", str(root)]
    _, showing = _timed(lambda: subprocess.run(show, stdout=subprocess.DEVNULL, check=True), times)
    return {
        "cells": len(plan.cells),
        "machine": {
            "processor": environment.describe("cpu")["processor"],
            "python": platform.python_version(),
        },
        "seconds": {"plan": planning, "resume": resuming, "show": showing},
    }


def write_run(root: Path, cells: int) -> None:
    """A run directory of `cells` finished cells."""
    _write(_plan(max(1, cells // SEEDS // 2)), Store(root))


def _timed(work: Callable[[], Any], times: int) -> tuple[Any, list[float]]:
    taken = []
    for _ in range(times):
        begun = time.monotonic()
        found = work()
        taken.append(round(time.monotonic() - begun, 2))
    return found, taken


def _plan(settings: int) -> Plan:
    values = [round(0.01 * i, 2) for i in range(1, settings + 1)]
    words = {
        "algos": ["dpo", "ipo"],
        "tasks": [TASK],
        "seeds": list(range(SEEDS)),
        "set": {"dpo.beta": values, "ipo.tau": values},
    }
    return make_plan(requests(words), plugins.load())


def _write(plan: Plan, store: Store) -> None:
    """A record per cell, as a table's has them, without waiting for the disk."""
    store.prepare()
    names = [str(m["name"]) for m in describe()]
    where, rng = environment.describe("cpu"), np.random.default_rng(0)
    for cell in plan.cells:  # no two runs come to the same numbers
        metrics: dict[str, float | None] = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        outcome = Outcome("ok", metrics, [], {"train_s": 1.0, "steps": 10, "step_ms_median": 1.0})
        record = cell_record(
            cell, outcome, status="ok", error=None, model={"name": "tabular"}, environment=where
        )
        (store.root / "cells" / f"{cell.key}.json").write_text(canonical(record), "utf-8")
    store.write_run({"schema": SCHEMA, "plan": [facts(cell) for cell in plan.cells]})


if __name__ == "__main__":
    main()
