"""What became of a job: its final metrics, curve, timing and notes, put together at the end of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from xpo_bench.metrics.registry import reported
from xpo_bench.policy.base import Notes, Policy
from xpo_bench.train.clock import Clock
from xpo_bench.train.evaluation.evaluator import Evaluator
from xpo_bench.train.job import Job, Outcome, RowFacts
from xpo_bench.train.memory import PeakMemory
from xpo_bench.train.plain_loop import PlainLoop
from xpo_bench.train.preparation import Preparation
from xpo_bench.train.run_block import RunBlock
from xpo_bench.train.update import Update

Metrics = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Results:
    """A group that has been trained.

    Args:
        losses: step -> the loss of every run at it, where they were kept. steps: those that were made.
        plain_loop: None where it is not measured.
    """

    policy: Policy
    jobs: Sequence[Job]
    evaluator: Evaluator
    preparation: Preparation
    update: Update
    clock: Clock
    memory: PeakMemory | None
    plain_loop: PlainLoop | None
    losses: Mapping[int, np.ndarray]
    steps: int

    def outcomes(self) -> list[Outcome]:
        """One outcome per job."""
        return [self._outcome(r, final) for r, final in enumerate(self.evaluator.finals())]

    def _outcome(self, r: int, final: Metrics) -> Outcome:
        curve = self.evaluator.rows(r, self.losses)
        # a parameter that stopped being finite at the very last update shows in the evaluation only
        alive = bool(self.update.alive[r]) and (not curve or curve[-1]["step"] == self.steps)
        noted = self.preparation.tools[r].noted
        measured: Metrics = {name: value for name, value in noted.items() if reported(name)}
        rows = self.preparation.rows.facts(self.jobs[r])
        return Outcome(
            status="ok" if alive else "diverged",
            metrics=final | self._costs() | measured,
            curve=curve,
            timing=self._timing(),
            notes=dict(self.policy.notes)
            | self.evaluator.notes(r)
            | {name: value for name, value in noted.items() if name not in measured}
            | self._notes(r, rows),
            final_policy=self.evaluator.final_policy(r),
            data=rows,
            items=self.evaluator.items(r),
        )

    def _costs(self) -> Metrics:
        """What the group cost, as each of its runs reports it."""
        clock, update = self.clock, self.update
        costs: Metrics = {}
        if clock.train_s > 0:
            costs["pairs_per_s"] = update.pairs_seen / clock.train_s
            if update.tokens_seen:
                costs["tokens_per_s"] = update.tokens_seen / clock.train_s
        costs["prepare_s"] = clock.prepare_s
        if self.policy.stacked:  # copies of one model side by side own neither the operations nor the memory
            return costs
        known = {
            "total_flops": clock.flops,
            "peak_memory_mb": self.memory.peak_mb if self.memory else None,
            "overhead": self.plain_loop.ratio() if self.plain_loop else None,
        }
        return costs | {name: value for name, value in known.items() if value is not None}

    def _notes(self, r: int, rows: RowFacts) -> Notes:
        """Facts about the rows of a run and how it was trained."""
        notes: Notes = {}
        block = next(block for block in self.preparation.blocks if block.runs.start <= r < block.runs.stop)
        if block.data is not None and block.data.truncated:
            notes["truncated"] = block.data.truncated
        if rows and (lost := rows["equal_ids"] + sum(rows["unfit"].values())):
            notes["dropped_rows"] = lost
        if self.update.micro_batch != self.jobs[r].budget.micro_batch:
            notes["micro_batch"] = self.update.micro_batch
        if any(group.mismatched for group in self.jobs[r].algorithm.groups.values()):
            notes["z0"] = self._z0(block, r)
        if block.state:
            values = {name: float(value[r - block.runs.start, 0]) for name, value in block.state.items()}
            notes["state"] = {name: value if isfinite(value) else None for name, value in values.items()}
        return notes

    def _z0(self, block: RunBlock, r: int) -> str:
        """Where the KL of a mismatched group comes from: the exact one, other prompts, or nowhere."""
        partnerless = block.data.partnerless if block.data is not None else None
        if partnerless is not None and partnerless[r - block.runs.start]:
            return "none"
        return "exact" if self.policy.enumerable else "mismatched"

    def _timing(self) -> dict[str, float | None]:
        clock = self.clock
        return {
            "prepare_s": clock.prepare_s,
            "train_s": clock.train_s,
            "evaluate_s": clock.evaluate_s,
            "steps": self.steps,
            "step_ms_median": clock.step_ms_median,
            "vectorised_runs": len(self.jobs),
        }
