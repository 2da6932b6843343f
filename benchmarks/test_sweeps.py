"""How many runs of an exact world train in the time of one.

    python benchmarks/test_sweeps.py --write results/sweeps.json   # sizes interleaved, ratios to one run
    pytest benchmarks/test_sweeps.py                               # pytest-benchmark: one step at each size

A run-step is one optimizer step of one run. Every run of a sweep has its own seed (its own pairs of `bandit`,
its own batches) and its own β; DPO under Adam, one thread. Each round trains every size once after training a
single run, and the ratio of a round is (runs / median step) over (1 / median step of the single run of that
round).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from xpo_bench import Budget, Dataset, ModelSpec
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.runner import environment
from xpo_bench.train.job import Job
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.tasks.bandit import Bandit

SIZES = (1, 10, 100, 1000, 10000)
DATASETS = 64
"""Distinct sets of pairs; runs beyond them share one in memory, and still draw batches of their own."""


@cache
def datasets() -> list[Dataset]:
    """The pairs of `bandit` at the first seeds."""
    task = Bandit()
    return [task.data(seed, ModelSpec()) for seed in range(DATASETS)]


def trainer(runs: int, batch: int, steps: int) -> GroupTrainer:
    """A sweep of DPO over seeds and β, ready to run; evaluation takes few rows."""
    budget = Budget(steps=steps, batch_size=batch, lr=0.05, eval_pairs=8, heldout_pairs=8)
    known = datasets()
    world = known[0].world
    assert world is not None
    jobs = [
        Job(DPO(beta=0.05 + 0.001 * (r % 100)), "bandit", r, 0.05, "adam", known[r % DATASETS], budget)
        for r in range(runs)
    ]
    return GroupTrainer(TabularPolicy(world, runs), jobs, None)


def step_ms(runs: int, batch: int, steps: int) -> float:
    """Median milliseconds of a step, from the training clock of the record."""
    median = trainer(runs, batch, steps).run()[0].timing["step_ms_median"]
    assert median is not None
    return median


@pytest.mark.parametrize("batch", [8, 256])
@pytest.mark.parametrize("runs", [1, 10, 100, 1000])
def test_a_step(benchmark: Callable[..., Any], runs: int, batch: int) -> None:
    torch.set_num_threads(1)
    prepared = trainer(runs, batch, 200)
    prepared.run()
    benchmark.extra_info["runs"] = runs  # type: ignore[attr-defined]
    benchmark(prepared.update.step, 1, 1.0)


def measure(
    sizes: list[int], batch: int, steps: int, rounds: int, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row per size: run-steps per second and the ratio to one run, medians with extremes over rounds."""
    rates: dict[int, list[float]] = {runs: [] for runs in sizes}
    ratios: dict[int, list[float]] = {runs: [] for runs in sizes}
    for number in range(rounds):
        for runs in sizes:
            note(f"batch {batch}, round {number + 1} of {rounds}: {runs} runs")
            alone = 1e3 / step_ms(1, batch, max(steps, 200))
            rate = alone if runs == 1 else runs * 1e3 / step_ms(runs, batch, steps)
            rates[runs].append(rate)
            ratios[runs].append(rate / alone)
    return [
        {
            "runs": runs,
            "batch": batch,
            "run_steps_per_s": statistics.median(rates[runs]),
            "run_steps_per_s_range": [min(rates[runs]), max(rates[runs])],
            "ratio": statistics.median(ratios[runs]),
            "ratio_range": [min(ratios[runs]), max(ratios[runs])],
            "rounds": rounds,
        }
        for runs in sizes
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sizes", default=",".join(map(str, SIZES)), help="runs of a sweep, comma-separated")
    words.add_argument("--batches", default="8,256", help="pairs a step, comma-separated")
    words.add_argument("--steps", type=int, default=60, help="steps of a measurement")
    words.add_argument("--rounds", type=int, default=5, help="repetitions, interleaved")
    words.add_argument("--write", type=Path, help="JSON file for the numbers")
    asked = words.parse_args(argv)
    torch.set_num_threads(1)
    console, progress = Console(), Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for batch in map(int, asked.batches.split(",")):
        sizes = [int(size) for size in asked.sizes.split(",")]
        rows += measure(
            sizes, batch, asked.steps, asked.rounds, lambda text: progress.print(text, highlight=False)
        )
    table = Table("runs", "pairs a step", "run-steps/s", "lowest–highest", "x one run", "lowest–highest")
    for row in rows:
        low, high = row["run_steps_per_s_range"]
        bottom, top = row["ratio_range"]
        table.add_row(
            f"{row['runs']:,}",
            str(row["batch"]),
            f"{row['run_steps_per_s']:,.0f}",
            f"{low:,.0f}–{high:,.0f}",
            f"{row['ratio']:.1f}",
            f"{bottom:.1f}–{top:.1f}",
        )
    console.print(table)
    if asked.write:
        command = ["python", "benchmarks/test_sweeps.py", *(argv if argv is not None else sys.argv[1:])]
        document = {"command": " ".join(command), "environment": environment.describe("cpu"), "rows": rows}
        asked.write.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
