"""Jobs on small tables, trained without the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from xpo_bench import Algorithm, Budget, Dataset, Pair, World
from xpo_bench.data.world_file import world_of
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.trainer import GroupTrainer

ONE_PAIR = (Pair("x", "a", "b"),)

MakeJob = Callable[..., Job]
Train = Callable[[Sequence[Job]], list[Outcome]]


def never(*_: Any) -> Any:
    raise AssertionError("a table scores its own reference")


@pytest.fixture
def job() -> MakeJob:
    """A job; rows are pairs (or a data set), everything else belongs to the budget."""

    def make(
        algorithm: Algorithm,
        rows: Sequence[Any] | Dataset = ONE_PAIR,
        *,
        seed: int = 0,
        lr: float = 0.05,
        optimizer: str = "adam",
        world: World | None = None,
        **budget: Any,
    ) -> Job:
        dataset = rows if isinstance(rows, Dataset) else Dataset(train=tuple(rows), world=world)
        settings = Budget(**{"steps": 20} | budget)
        return Job(algorithm, "test", seed, lr, optimizer, dataset, settings)  # type: ignore[arg-type]

    return make


@pytest.fixture
def train() -> Train:
    """Trains the jobs of one group on a table."""

    def run(jobs: Sequence[Job]) -> list[Outcome]:
        dataset = jobs[0].dataset
        world = dataset.world or world_of((*dataset.train, *dataset.heldout), None)
        policy = TabularPolicy(world, len(jobs), jobs[0].budget.dtype)
        return GroupTrainer(policy, jobs, never).run()

    return run
