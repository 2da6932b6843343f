"""What comes before the steps of a stage: rows, tools, shaped data, reference scores and their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import Stage
from xpo_bench.data.labels import carried
from xpo_bench.policy.base import ClosedForm, Policy, Stacked
from xpo_bench.train.binding import bind
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.evaluation.exact import exhaustive
from xpo_bench.train.job import Job, stack_configs
from xpo_bench.train.reference import Scorer, StageReference, standing_at
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.row_selection import Rows, generator
from xpo_bench.train.run_block import RunBlock, blocks_of
from xpo_bench.train.stage_data import StageData
from xpo_bench.train.tools import CellTools


class Preparation:
    """The data of a group of jobs, from the rows of its task to what a step reads.

    Args:
        policy: at the task's initial distribution. score_initial: reference scores under it, which cells
            share; None where the policy scores its own.
        shapes: whether this process runs `shape_data`; the others are told what it returned.

    Attributes:
        clean: the rows that every run is evaluated on. tools: of every run. blocks: the runs by algorithm.
            All three are there once `load` was called.
    """

    def __init__(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        score_initial: Scorer | None,
        *,
        truncate: str,
        processes: Processes,
        shapes: bool,
    ) -> None:
        self.policy, self.jobs, self.truncate = policy, jobs, truncate
        self.shared_scores = score_initial
        self.processes, self.shapes = processes, shapes
        self.initial = policy.snapshot()
        self.rows = Rows(policy, truncate)
        self.reference = StageReference(policy)
        self.clean: list[list[Example]] = []
        self.tools: list[CellTools] = []
        self.blocks: list[RunBlock] = []

    @property
    def in_batches(self) -> bool:
        """Whether the steps of some run take a part of its rows each."""
        return any(self.rows.in_batches(job) for job in self.jobs)

    def load(self) -> None:
        """Draw the rows of every run and shape them."""
        pools = [self.rows.pool(job) for job in self.jobs]
        self.clean = [clean for clean, _ in pools]
        self.tools = [self._tools(r, job) for r, job in enumerate(self.jobs)]
        for runs in blocks_of(self.jobs):
            self.blocks.append(self._block(runs, [noisy for _, noisy in pools[runs]]))

    def _tools(self, r: int, job: Job) -> CellTools:
        return CellTools(
            self.policy,
            r,
            initial=self.initial,
            rng=generator(job, "generate"),
            budget=job.budget,
            heldout=self.rows.unseen(job),
            truncate=self.truncate,
            listed=None if self.policy.enumerable else exhaustive(job.dataset),
            dataset=job.dataset,
        )

    def _block(self, runs: slice, pools: Sequence[list[Example]]) -> RunBlock:
        jobs = self.jobs[runs]
        shaped = []
        for job, tools, pool in zip(jobs, self.tools[runs], pools, strict=True):
            algorithm = job.algorithm
            rows = self.rows.accepted(pool, algorithm.accepts)
            tools.examples = rows
            later = any(stage.refresh is not None or stage.solve for stage in algorithm.stages())
            shaped.append(rows if later else self._shape(algorithm, rows, tools))
        dtype, device = self.policy.value_dtype, self.policy.device
        stacked = stack_configs([job.algorithm for job in jobs], dtype, device)
        block = RunBlock(jobs=jobs, runs=runs, stacked=stacked, shaped=shaped)
        block.restart(dtype, device)
        return block

    def _shape(self, algorithm: Algorithm, rows: Sequence[Example], tools: CellTools) -> Sequence[Example]:
        """What `shape_data` makes of the rows: it may sample, so one process calls it for all."""
        if type(algorithm).shape_data is Algorithm.shape_data:
            return rows
        made = carried(rows, algorithm.shape_data(rows, tools)) if self.shapes else rows
        return self.processes.from_first(made)

    # ---------------------------------------------------------------- stages

    def begin_stage(self, stage: Stage, moved: bool) -> None:
        """Hold the reference of a stage that begins; `moved`: it is another policy than the initial one."""
        self.reference.begin(stage, [block.plain for block in self.blocks], moved)

    def solve(self) -> None:
        """Set every run to the policy that its algorithm knows in closed form."""
        if not isinstance(self.policy, ClosedForm):
            raise TypeError("a stage with solve=True needs a policy that can be set in closed form")
        for block in self.blocks:
            for r, job, rows in block.members():
                self.policy.tilt(r, job.algorithm.solve(rows, self.tools[r]))
        self.policy.notes["solved"] = True

    def bind(self, block: RunBlock, number: int, stage: Stage, steps: int, t: int) -> None:
        """Encode a stage's data and draw its schedule; at a refresh, the data of the next batch of rows."""
        examples: list[Sequence[Example]] = []
        schedules: list[np.ndarray | None] = []
        for r, job, shaped in block.members():
            rows = shaped
            if stage.refresh is not None:
                rows = self.rows.next_rows(job, rows, number, steps, t // stage.refresh)
                rows = self._shape(job.algorithm, rows, self.tools[r])
            rows = job.algorithm.stage_examples(number, rows)
            if not rows:
                raise ValueError(f"{job.algorithm.name}: stage {number} has no examples")
            examples.append(rows)
            schedules.append(self._schedule(job, rows, number, stage, steps))
        block.data = self._bound(block, examples, schedules, first=t == 0)

    def _schedule(
        self, job: Job, rows: Sequence[Example], number: int, stage: Stage, steps: int
    ) -> np.ndarray | None:
        schedule = None if stage.refresh is not None else self.rows.schedule(job, rows, number, steps)
        if schedule is None and not self.processes.alone:
            return np.arange(len(rows))[None]  # a full batch that is shared needs its rows named
        return schedule

    def _bound(
        self,
        block: RunBlock,
        examples: Sequence[Sequence[Example]],
        schedules: Sequence[np.ndarray | None],
        first: bool,
    ) -> StageData:
        reference, runs = self.reference, block.runs
        against = None
        if any(group.token_kl for group in block.plain.groups.values()):
            against = reference.state if reference.moved else self.initial
        return bind(
            block.stacked,
            self.policy,
            runs=runs,
            examples=examples,
            schedules=schedules,
            score_reference=(
                reference.scorer(runs, first=first) if reference.moved else self.score_initial(runs)
            ),
            token_rows=block.jobs[0].budget.loss_over == "token",
            truncate=self.truncate,
            processes=self.processes,
            unit_rows=block.unit,
            against=against,
            reference_table=None if reference.table is None else reference.table[runs],
        )

    # ---------------------------------------------------------------- reference scores

    def score_initial(self, runs: slice) -> Scorer:
        """Scores of some runs under the initial policy."""
        if self.shared_scores is not None and not self.policy.enumerable:  # a table scores its own
            return self.shared_scores

        def score(
            completions: Sequence[Sequence[Completion]], stacked: Stacked, used: Tensor | None
        ) -> Scores:
            with standing_at(self.policy, self.initial):
                return self.policy.score_all(stacked, used, runs=runs)

        return score

    def take_uncharged(self) -> tuple[float, float]:
        """Seconds and operations that shared scores would cost this cell alone, since the last asking."""
        shared = self.shared_scores
        return shared.take_uncharged() if isinstance(shared, ReferenceScorer) else (0.0, 0.0)
