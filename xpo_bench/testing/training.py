"""Checks that train tabular policies of the small world, with the trainer and runner of every cell."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import Budget, ModelSpec
from xpo_bench.contract.task import Task
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.testing.verdicts import require
from xpo_bench.testing.world import NAME, PAIRS, WORLD
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.trainer import GroupTrainer

STEPS = 30
BUDGET = Budget(steps=STEPS, lr=0.05, batch_size=5)
TIMED = ("prepare_s", "pairs_per_s", "tokens_per_s")
"""Metrics that two equal runs need not share."""


@dataclass(frozen=True)
class SmallWorld(Task):
    """The small world as a task."""

    name: ClassVar[str] = NAME
    budget: ClassVar[Budget] = BUDGET

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        return Dataset(train=PAIRS, rows=len(PAIRS), world=WORLD)


def train(algorithm: Algorithm, budget: Budget = BUDGET) -> Outcome:
    """One run of the algorithm on the small world."""
    dataset = SmallWorld().data(0, ModelSpec())
    job = Job(algorithm, NAME, 0, budget.lr, budget.optimizer, dataset, budget)
    return GroupTrainer(TabularPolicy(WORLD, 1), [job], _no_cache).run()[0]


def _no_cache(*_: object) -> NoReturn:
    raise AssertionError("a table scores its own reference")


def learns(algorithm: Algorithm) -> None:
    """A few steps raise the chosen completions against the rejected ones."""
    outcome = train(algorithm, replace(BUDGET, batch_size=len(PAIRS)))
    require(outcome.status == "ok", f"training ends {outcome.status}")
    final = outcome.final_policy
    assert final is not None
    moved = 0.0
    for pair in PAIRS:
        # Δ[ln π(chosen) − ln π(rejected)] against the reference, from which training starts
        now, then = final[pair.prompt], WORLD.reference[pair.prompt]
        moved += float(
            np.log(now[pair.chosen] / now[pair.rejected]) - np.log(then[pair.chosen] / then[pair.rejected])
        )
    mean = moved / len(PAIRS)
    require(
        mean > 1e-3,
        f"after {STEPS} steps the log-ratio of chosen to rejected has changed by {mean:+.3g} nats on average",
    )


def same_seed(algorithm: Algorithm) -> None:
    """Two trainings with one seed give the same curve to the bit, whatever the state of global generators."""
    curves = []
    for state in (0, 1):
        with global_seeds(state):
            outcome = train(algorithm)
            curves.append([{k: v for k, v in row.items() if k not in TIMED} for row in outcome.curve])
            curves[-1].append(outcome.final_policy)  # type: ignore[arg-type]
    for one, other in zip(*curves, strict=True):
        require(
            repr(one) == repr(other),
            "two trainings with one seed differ: draw from tools.rng, and keep no state between runs",
        )


@contextmanager
def global_seeds(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def resume(algorithm: Algorithm) -> None:
    """A run that is resumed has the records of a run that was not interrupted."""
    with tempfile.TemporaryDirectory(prefix="xpo-bench-check-") as folder:
        whole = _records(algorithm, Path(folder) / "whole", (0, 1))
        _records(algorithm, Path(folder) / "parts", (0,))
        parts = _records(algorithm, Path(folder) / "parts", (0, 1))
    for seed in (0, 1):
        status, message = whole[seed]["status"], (whole[seed]["error"] or {}).get("message", "")
        require(status == "ok", f"seed {seed} ends {status}{': ' if message else ''}{message}")
        require(
            repr(parts[seed]) == repr(whole[seed]),
            f"seed {seed} differs between a resumed and an uninterrupted run",
        )


def _records(algorithm: Algorithm, out: Path, seeds: tuple[int, ...]) -> dict[int, Mapping[str, Any]]:
    """What a run's records say about its numbers, by seed."""
    from xpo_bench.api import run

    result = run(algos=[algorithm], tasks=[SmallWorld()], seeds=list(seeds), out=out)
    kept: dict[int, Mapping[str, Any]] = {}
    for cell in result.cells:
        metrics = {name: value for name, value in cell["metrics"].items() if name not in TIMED}
        kept[cell["seed"]] = {"metrics": metrics} | {
            key: cell.get(key) for key in ("status", "error", "final_policy")
        }
    return kept
