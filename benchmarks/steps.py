"""What one step of a small language model costs against a plain loop on the same rows and weights.

    python -m benchmarks.steps --write results/steps.json

The step is that of `overfit_pair` (1.3 million weights, two rows of ten tokens) as the trainer makes it. The
plain loop is its forward pass, log softmax, gather and DPO's loss, `torch.autograd.grad` and the fused Adam
of torch.optim, and nothing else. One process and one thread; a round makes a few steps of one and then of the
other, in turn, and compares their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from xpo_bench import Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.pretrained import quiet
from xpo_bench.policy.language.tiny import tiny_model
from xpo_bench.runner import environment
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.tasks.overfit_pair import OverfitPair

TASK, LR, BETA = OverfitPair(), 1e-3, 0.1
CLOCKS: dict[str, Callable[[], float]] = {"wall_ms": time.perf_counter, "cpu_ms": time.process_time}


def suite() -> Callable[[], object]:
    """One step of the trainer."""
    policy = CausalLM.load(TASK.model, init_seed=0)
    budget = replace(TASK.budget, steps=2, kl_samples=1)
    job = Job(DPO(beta=BETA), TASK.name, 0, LR, "adam", TASK.data(0, TASK.model), budget)
    trainer = GroupTrainer(policy, [job], ReferenceScorer(policy, policy.snapshot(), {}))
    trainer.plain_loop = None
    trainer.run()
    return lambda: trainer.update.step(1, 1.0)


def plain() -> Callable[[], object]:
    """One step of the plain loop, from the same weights."""
    model = tiny_model(TASK.model, 0).eval()
    (pair,) = TASK.data(0, TASK.model).train
    assert isinstance(pair, Pair)
    start = len(pair.prompt.split())
    texts = (f"{pair.prompt} {text}" for text in (pair.chosen, pair.rejected))
    ids = torch.tensor([[int(word) for word in text.split()] for text in texts])
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, lr=LR, fused=True)

    def logps() -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False).logits[:, start - 1 : -1]
        return F.log_softmax(logits, -1).gather(-1, ids[:, start:, None]).squeeze(-1).sum(-1)

    with torch.no_grad():
        reference = logps()

    def step() -> None:
        chosen, rejected = BETA * (logps() - reference)
        grads = torch.autograd.grad(-F.logsigmoid(chosen - rejected), weights)
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], object], clock: Callable[[], float], count: int) -> float:
    """Median milliseconds of a few steps."""
    found = []
    for _ in range(count):
        begun = clock()
        step()
        found.append(clock() - begun)
    return 1e3 * statistics.median(found)


def spread(values: list[float]) -> dict[str, Any]:
    """Median, quarters, lowest and highest."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "quarters": [low, high], "lowest": min(values), "highest": max(values)}


def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    """One row per clock: both steps, and the ratio of a round."""
    with quiet():
        ours, theirs = suite(), plain()
    timed(ours, time.perf_counter, count)
    timed(theirs, time.perf_counter, count)
    rows = []
    for name, clock in CLOCKS.items():
        found = [(timed(ours, clock, count), timed(theirs, clock, count)) for _ in range(rounds)]
        steps, loops = ([pair[i] for pair in found] for i in (0, 1))
        rows.append(
            {
                "clock": name,
                "rounds": rounds,
                "steps": count,
                "step": spread(steps),
                "plain_loop": spread(loops),
                "ratio": spread([a / b for a, b in found]),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the numbers where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=40, help="rounds, of each clock")
    words.add_argument("--steps", type=int, default=15, help="steps of each in a round")
    words.add_argument("--write", type=Path, help="JSON file for the numbers")
    asked = words.parse_args(argv)
    torch.set_num_threads(1)
    rows = measure(asked.rounds, asked.steps)
    table = Table("clock", "step", "plain loop", "step / plain loop", "quarters", "lowest–highest")
    for row in rows:
        step, loop, ratio = (row[name] for name in ("step", "plain_loop", "ratio"))
        low, high = ratio["quarters"]
        table.add_row(
            str(row["clock"]),
            f"{step['median']:.2f}",
            f"{loop['median']:.2f}",
            f"{ratio['median']:.2f}",
            f"{low:.2f}–{high:.2f}",
            f"{ratio['lowest']:.2f}–{ratio['highest']:.2f}",
        )
    Console().print(table)
    if asked.write:
        command = ["python -m benchmarks.steps", *(argv if argv is not None else sys.argv[1:])]
        document = {"command": " ".join(command), "environment": environment.describe("cpu"), "rows": rows}
        asked.write.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
