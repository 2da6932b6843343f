"""Records to compare, and their comparison."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from xpo_bench.compare.baselines import Baseline
from xpo_bench.compare.document import Document
from xpo_bench.compare.margins import MARGINS
from xpo_bench.compare.regressions import find_regressions

Records = list[Any]  # of dictionaries, which tests change
ENVIRONMENT = {
    "platform": "Linux x86_64",
    "processor": "p",
    "device": "cpu",
    "threads": 1,
    "packages": {"torch": "2.13.0", "numpy": "2.4.6", "transformers": "5.23.0"},
}


def record(task: str, seed: int, metrics: dict[str, float]) -> dict[str, Any]:
    """A record of dpo with what a comparison reads."""
    return {
        "schema": 1,
        "key": f"{task}-{seed}",
        "status": "ok",
        "seed": seed,
        "experiment": None,
        "algorithm": {"name": "dpo", "config": {"beta": 0.1}, "distribution": "xpo-bench", "version": "1"},
        "task": {
            "name": task,
            "version": 1,
            "options": {},
            "budget": {"steps": 100},
            "model": {"name": "tabular"},
            "data": {"fingerprint": f"data-{seed}"},
            "expected_divergence": False,
        },
        "train": {"lr": 0.1, "optimizer": "adam"},
        "metrics": metrics | {"pairs_per_s": 100.0},
        "environment": copy.deepcopy(ENVIRONMENT),
    }


def run(seeds: int = 5, tasks: int = 1, shift: Mapping[str, float] = MappingProxyType({})) -> Records:
    """Records whose every seed has its own level, the same at every call; `shift` moves a metric of all."""
    rng = np.random.default_rng(1)
    levels = {"reward_accuracy": 0.9, "kl": 1.0, "gold_reward": 0.1, "frontier_gap": 0.1}
    out = []
    for task in range(tasks):
        for seed in range(seeds):
            drawn = {name: value + 0.01 * rng.standard_normal() for name, value in levels.items()}
            out.append(record(f"task{task}", seed, {m: v + shift.get(m, 0.0) for m, v in drawn.items()}))
    return out


def shaken(records: Records, size: float, seed: int = 2) -> Records:
    """The same, every metric of every seed moved at random."""
    rng = np.random.default_rng(seed)
    out = copy.deepcopy(records)
    for r in out:
        r["metrics"] = {m: v + size * rng.standard_normal() for m, v in r["metrics"].items()}
    return out


def said(base: Records, new: Records, margins: Any = MARGINS, **options: Any) -> Document:
    """The document of a comparison of two lists of records."""
    return find_regressions(Baseline("base", base), Baseline("new", new), margins, **options)


def spoil(run: Path, **metrics: float) -> None:
    """Add to metrics of every record."""
    for number, path in enumerate(sorted((run / "cells").glob("*.json"))):
        record = json.loads(path.read_text("utf-8"))
        for name, value in metrics.items():
            record["metrics"][name] += value * (1 + 0.001 * number)
        path.write_text(json.dumps(record), "utf-8")
