"""The initial policy of a cell: which weights they are, and the supervised steps that may come first."""

from __future__ import annotations

from typing import TypeAlias

import torch

from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.contract.settings import Budget, ModelSpec
from xpo_bench.policy.base import Model
from xpo_bench.random_streams import stream
from xpo_bench.train.batching import row_schedule
from xpo_bench.train.job import Job
from xpo_bench.train.optim import ModuleOptimizer

Identity: TypeAlias = tuple[str, int | None, int]
"""(model, seed where the weights depend on it, steps of the warm start)."""


def initial_identity(model: ModelSpec, budget: Budget, job: Job) -> Identity:
    """Cells with equal identities start from the same weights: random ones and warm starts have a seed."""
    seeded = model.name == "tiny" or budget.warm_start > 0
    return (model.name, job.seed if seeded else None, budget.warm_start)


def prepare_initial(policy: Model, job: Job, truncate: str) -> None:
    """The warm start on the corpus or the chosen completions: the same for all algorithms of a task and seed.

    Processes that share the layers of the model all take it, on the same rows.
    """
    budget = job.budget
    if not budget.warm_start:
        return
    good = list(job.dataset.corpus) or [
        Completion(e.prompt, e.chosen if isinstance(e, Pair) else e.completion)
        for e in job.dataset.train
        if isinstance(e, Pair) or e.desirable
    ]
    encoded = policy.encode(good, truncate)
    fit = torch.tensor([i for i in range(len(good)) if encoded.row(i) is not None], dtype=torch.long)
    rng = stream(job.seed, job.task, "order", "warm start")
    schedule = row_schedule(len(fit), budget.batch_size, budget.warm_start, "epochs", rng)
    optimizer = ModuleOptimizer("adamw", policy.parameters(), budget.warm_start_lr, 1.0, policy.sharding)
    # All processes take the same rows, and gradients of shared layers are summed over processes.
    copies = policy.sharding.count if policy.sharding else 1
    for t in range(budget.warm_start):
        index = (fit if schedule is None else fit[torch.from_numpy(schedule[t]).long()])[None]
        loss = -policy.score({"chosen": (encoded, index)}, grad=True)["chosen"].mean.mean()
        optimizer.step(optimizer.clipped(policy.gradients(loss / copies)), 1.0, None)
