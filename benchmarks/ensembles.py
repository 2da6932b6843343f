"""How many copies of a small language model train in the time of one: `ensemble` against cells in turn.

    python benchmarks/ensembles.py --device cpu --copies 1,16,64 --write results/ensembles.json

DPO on `overfit_pair`'s model and pair, Adam, every copy with weights of its own. A round times `--steps`
steps of an ensemble and of one copy by itself, next to each other; the ratio is copies x (median step of one)
/ (median step of the ensemble).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from xpo_bench import Budget
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.runner import environment
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.tasks.overfit_pair import OverfitPair

DISTINCT = 8
"""Different initial weights; further copies start from one of them, and are no cheaper for it."""


def step_ms(copies: int, steps: int, device: str) -> float:
    """Median milliseconds of a step; one copy takes the path of a single model."""
    task = OverfitPair()
    budget = Budget(steps=steps, batch_size=1, dtype="float32", kl_prompts=1, kl_samples=1, max_new_tokens=1)
    jobs = [
        Job(DPO(), task.name, seed, 1e-3, "adam", task.data(0, task.model), budget) for seed in range(copies)
    ]
    single = CausalLM.load(task.model, init_seed=0, device=device)
    states = [
        CausalLM.load(task.model, init_seed=seed, device=device).snapshot()
        for seed in range(min(copies, DISTINCT))
    ]
    if copies == 1:
        trainer = GroupTrainer(single, jobs, ReferenceScorer(single, states[0], {}), device=device)
    else:
        ensemble: Any = Ensemble(single, [states[c % DISTINCT] for c in range(copies)])
        trainer = GroupTrainer(ensemble, jobs, None, device=device)
    median = trainer.run()[0].timing["step_ms_median"]
    assert median is not None
    return median


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--copies", default="16,64", help="sizes of the ensemble, comma-separated")
    words.add_argument("--device", default="cpu")
    words.add_argument("--steps", type=int, default=20)
    words.add_argument("--rounds", type=int, default=5, help="repetitions, interleaved")
    words.add_argument("--write", type=Path, help="JSON file for the numbers")
    asked = words.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for copies in (int(c) for c in asked.copies.split(",") if int(c) > 1):
        pairs = [
            (step_ms(1, asked.steps, asked.device), step_ms(copies, asked.steps, asked.device))
            for _ in range(asked.rounds)
        ]
        ratios = [copies * alone / shared for alone, shared in pairs]
        rows.append(
            {
                "copies": copies,
                "step_ms_one": statistics.median(alone for alone, _ in pairs),
                "step_ms_ensemble": statistics.median(shared for _, shared in pairs),
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
                "rounds": asked.rounds,
            }
        )
    table = Table(
        "copies", "ms a step, one", "ms a step, ensemble", "x one after the other", "lowest–highest"
    )
    for row in rows:
        low, high = row["ratio_range"]
        one, shared = row["step_ms_one"], row["step_ms_ensemble"]
        table.add_row(
            str(row["copies"]), f"{one:.2f}", f"{shared:.2f}", f"{row['ratio']:.2f}", f"{low:.2f}–{high:.2f}"
        )
    Console().print(table)
    if asked.write:
        command = ["python", "benchmarks/ensembles.py", *(argv if argv is not None else sys.argv[1:])]
        document = {
            "command": " ".join(command),
            "environment": environment.describe(asked.device),
            "rows": rows,
        }
        asked.write.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
