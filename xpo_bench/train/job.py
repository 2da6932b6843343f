"""What the trainer is given and what it returns: no algorithm's or task's name is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Dataset, Example, Single
from xpo_bench.contract.metric import Metric
from xpo_bench.contract.settings import Budget, Optimizer
from xpo_bench.data.formats import to_singles
from xpo_bench.policy.base import Notes
from xpo_bench.train.items import Items

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Job:
    """One cell as the trainer sees it.

    Args:
        algorithm: the validated configuration. task: the task's name, for the random streams.
        lr, optimizer: this algorithm's own learning rate and update rule.
        dataset: clean rows. budget: the same for every algorithm of the task. metrics: of plugins, the same
            for all jobs.
        stop: the step at which a run is left, at the end of its budget by default. What the budget says of
            earlier steps, such as stages and warm-up, stays that of the whole run.
    """

    algorithm: Algorithm
    task: str
    seed: int
    lr: float
    optimizer: Optimizer
    dataset: Dataset
    budget: Budget
    metrics: tuple[Metric, ...] = ()
    stop: int | None = None

    @property
    def last(self) -> int:
        """The last step that is made."""
        return self.budget.steps if self.stop is None else self.stop

    def group(self) -> tuple[object, ...]:
        """Jobs with equal groups may share one run block: only float fields may differ."""
        alg = self.algorithm
        rigid = tuple(
            (f.name, getattr(alg, f.name)) for f in fields(alg) if not isinstance(getattr(alg, f.name), float)
        )
        return (type(alg), rigid, tuple(alg.stages()), self.optimizer)


class RowFacts(TypedDict, total=False):
    """What became of the rows of a data set in the context of a language model, for the record's `task.data`.

    `truncated` and `boundary_merges` count rows of which something was truncated, or of which prompt and
    completion share a token; `equal_ids` pairs whose sides have the same token ids, `unfit` other rows that
    were left out, by reason.
    """

    truncated: int
    boundary_merges: int
    equal_ids: int
    unfit: dict[str, int]


@dataclass
class Outcome:
    """What became of one job."""

    status: str
    metrics: dict[str, float | None]
    curve: list[dict[str, float | None]]
    timing: dict[str, float | None]
    notes: Notes = field(default_factory=dict)
    final_policy: dict[str, dict[str, float]] | None = None
    data: RowFacts = field(default_factory=lambda: RowFacts())
    items: Items | None = None


Progress = Callable[[int, int, float | None], None]
"""(step, steps, mean loss): called now and then while a group trains."""


def stack_configs(algorithms: Sequence[Algorithm], dtype: torch.dtype, device: torch.device) -> Algorithm:
    """One algorithm whose float fields are tensors of shape (runs, 1)."""
    import torch

    # β of shape (runs, 1) meets log-ratios of shape (runs, N): a loss written for one run computes all
    first = algorithms[0]
    stacked: Mapping[str, Any] = {
        f.name: torch.tensor([[getattr(a, f.name)] for a in algorithms], dtype=dtype, device=device)
        for f in fields(first)
        if f.init and isinstance(getattr(first, f.name), float)
    }
    return replace(first, **stacked)


def as_accepted(examples: Sequence[Example], accepts: type) -> list[Example]:
    """The rows as the algorithm takes them: a pair becomes two adjacent unpaired examples, or stays."""
    return [*to_singles(examples)] if accepts is Single else list(examples)
