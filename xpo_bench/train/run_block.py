"""The runs of a group by algorithm: what one loss computes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Example
from xpo_bench.contract.scoring import Step
from xpo_bench.train.algorithm_state import begin
from xpo_bench.train.grouping import grouping
from xpo_bench.train.job import Job
from xpo_bench.train.stage_data import StageData


@dataclass(kw_only=True)
class RunBlock:
    """Consecutive runs of one algorithm whose configurations differ in float fields only.

    Attributes:
        stacked: the algorithm with float fields of shape (runs, 1).
        shaped: per run, the rows that training starts from: as `shape_data` returned them, or as it will be
            given them where a stage makes its own data.
        state: what the algorithm carries from step to step, empty for most.
        seen: what a step has scored so far, for the next state; nothing where there is none.
    """

    jobs: Sequence[Job]
    runs: slice
    stacked: Algorithm
    shaped: list[Sequence[Example]]
    data: StageData | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    seen: list[Step] = field(default_factory=list)

    @property
    def plain(self) -> Algorithm:
        """The algorithm of the first run, with numbers for fields."""
        return self.jobs[0].algorithm

    @cached_property
    def unit(self) -> int:
        """Examples of a step that stay together: those of one row of the data, at most."""
        return max(grouping(job, rows).most for job, rows in zip(self.jobs, self.shaped, strict=True))

    @property
    def bound(self) -> StageData:
        """The data of the stage at hand."""
        assert self.data is not None
        return self.data

    def members(self) -> Iterator[tuple[int, Job, Sequence[Example]]]:
        """(run, its job, its shaped rows)."""
        yield from zip(range(self.runs.start, self.runs.stop), self.jobs, self.shaped, strict=True)

    def restart(self, dtype: torch.dtype, device: torch.device) -> None:
        """Begin with the algorithm's initial state."""
        self.state = begin(self.stacked, len(self.jobs), dtype, device)


def blocks_of(jobs: Sequence[Job]) -> Iterator[slice]:
    """The runs of each block: adjacent jobs of equal `Job.group()`."""
    start = 0
    for _, found in groupby(jobs, key=Job.group):
        end = start + len(list(found))
        yield slice(start, end)
        start = end
