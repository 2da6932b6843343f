"""How many runs with adapters train in the time of one: `--lora r=8` together against one after the other.

    python -m benchmarks.adapters --model MODEL --runs 1,4,16 --write results/adapters.json

DPO with AdamW on a frozen model, one thread. A round makes one step of every run by itself, as `--lora` does,
and one step of all of them together, as `task.ensemble` does, next to each other and on equal rows; the ratio
is that of the processor's seconds. Peak memory is that of a process which does the one or the other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from xpo_bench import ModelSpec
from xpo_bench.policy.language.adapters import Adapters
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.runner import environment
from xpo_bench.train.optim import ModuleOptimizer, StackedOptimizer

SHAPES = ((1, 40), (4, 64), (4, 256))
"""Pairs of a step, and tokens of each of their rows, of which half are the prompt."""


class Ways(NamedTuple):
    """One step of all runs: one after the other, and together."""

    apart: Callable[[], None]
    together: Callable[[], None]


def rows(model: CausalLM, runs: int, pairs: int, tokens: int) -> list[Encoded]:
    """Random rows of every run, the two of a pair behind one prompt."""
    rng = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(3, model.network.embeddings, (count,), generator=rng).tolist()

    found = []
    for _ in range(runs):
        prompts = [ids(tokens // 2) for _ in range(pairs)]
        own = [Row((*p, *ids(tokens - len(p))), len(p)) for p in prompts for _ in range(2)]
        found.append(Encoded(tuple(own), torch.arange(len(own))))
    return found


def loss(logps: Tensor) -> Tensor:
    """DPO's loss against a reference of zero, summed over runs, from shape (runs, 2·pairs)."""
    margins = logps[:, 0::2] - logps[:, 1::2]
    return -torch.nn.functional.logsigmoid(0.1 * margins).mean(1).sum()


def ways(model: CausalLM, encoded: Sequence[Encoded]) -> Ways:
    """What is timed."""
    runs = len(encoded)
    alone = ModuleOptimizer("adamw", model.parameters(), 1e-4)
    copies = Adapters(model, [model.snapshot() for _ in range(runs)])
    stacked = StackedOptimizer(
        "adamw", copies.parameters(), torch.full((runs,), 1e-4, dtype=model.value_dtype, device=model.device)
    )

    def apart() -> None:
        for own in encoded:
            alone.step(model.gradients(loss(model.score({"a": (own, None)}, grad=True)["a"].sum)), 1.0, None)

    def together() -> None:
        scores = copies.score({"a": (encoded, None)}, grad=True)["a"]
        grads = torch.autograd.grad(loss(scores.sum), copies.parameters())
        stacked.step(list(grads), 1.0, None)

    return Ways(apart, together)


def seconds(what: Callable[[], None]) -> float:
    before = time.process_time()
    what()
    return time.process_time() - before


def measure(model: CausalLM, runs: int, pairs: int, tokens: int, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    apart, together = ways(model, rows(model, runs, pairs, tokens))
    apart(), together()
    ratios = sorted(seconds(apart) / seconds(together) for _ in range(rounds))
    return {
        "runs": runs,
        "pairs": pairs,
        "tokens": tokens,
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


def peak(words: tuple[str, int, int, int, int]) -> float:
    """Peak memory in MiB of a process that makes three steps of so many runs together (one: by itself)."""
    torch.set_num_threads(1)
    name, rank, runs, pairs, tokens = words
    model = load(name, rank)
    step = ways(model, rows(model, runs, pairs, tokens))[0 if runs == 1 else 1]
    for _ in range(3):
        step()
    # that of this program: what getrusage() says begins with the peak of the process that started it
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def load(name: str, rank: int) -> CausalLM:
    return CausalLM.load(ModelSpec(name=name, lora_rank=rank, lora_alpha=2 * rank), init_seed=0)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="tiny", help="a model directory or hub id")
    words.add_argument("--rank", type=int, default=8)
    words.add_argument("--runs", default="4,16", help="runs that train together, comma-separated")
    words.add_argument("--rounds", type=int, default=7, help="repetitions, interleaved")
    words.add_argument("--write", type=Path, help="JSON file for the numbers")
    asked = words.parse_args(argv)
    torch.set_num_threads(1)
    model = load(asked.model, asked.rank)
    fresh = multiprocessing.get_context("spawn")
    found = []
    for runs in (int(count) for count in asked.runs.split(",")):
        for pairs, tokens in SHAPES:
            row = measure(model, runs, pairs, tokens, asked.rounds)
            with fresh.Pool(1, maxtasksperchild=1) as pool:
                sizes = [(asked.model, asked.rank, count, pairs, tokens) for count in (1, runs)]
                one, all_of_them = pool.map(peak, sizes, chunksize=1)
            found.append(row | {"memory": all_of_them / one, "memory_one_mb": one})
    table = Table("runs", "pairs x tokens", "times as fast", "memory of one", box=None)
    for row in found:
        spread = f"{row['ratio']:.2f} ({row['lowest']:.2f}–{row['highest']:.2f})"
        table.add_row(str(row["runs"]), f"{row['pairs']} x {row['tokens']}", spread, f"{row['memory']:.2f} x")
    Console().print(table)
    if asked.write:
        facts = {"environment": environment.describe("cpu"), "rank": asked.rank, "rows": found}
        facts |= {"model": Path(asked.model).name, "parameters": model.network.weights.size}
        asked.write.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
