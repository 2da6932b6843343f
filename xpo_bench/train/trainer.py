"""The trainer: stages x steps for a group of jobs that share one policy. It knows no algorithm's name.

All runs of a group share the forward pass of a table and one optimizer step; each algorithm computes
its loss on its own slice of the runs. A language model is a group of one run through the same code, or an
ensemble of copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.contract.settings import Stage
from xpo_bench.metrics.registry import reported
from xpo_bench.policy.base import Policy
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.train.algorithm_state import begin, detached, next_state
from xpo_bench.train.budget import evaluation_steps, stage_steps, warmup_scale
from xpo_bench.train.clock import Clock
from xpo_bench.train.data_parallel import ALONE, WHOLE, Piece, Processes
from xpo_bench.train.evaluation.evaluator import Evaluator
from xpo_bench.train.evaluation.exact import longest
from xpo_bench.train.job import Job, Outcome, Progress, stack_configs
from xpo_bench.train.memory import PeakMemory, is_out_of_memory
from xpo_bench.train.optim import ModuleOptimizer, StackedOptimizer, Stepper
from xpo_bench.train.reference import ReferenceScorer, StageReference, claims_preference
from xpo_bench.train.row_selection import Rows, generator, halved
from xpo_bench.train.sft_overhead import BareStep
from xpo_bench.train.stage_data import StageData, bind
from xpo_bench.train.tools import CellTools
from xpo_bench.train.update import per_example


@dataclass
class RunBlock:
    """Consecutive runs of one algorithm whose configurations differ in float fields only.

    `state` is what the algorithm carries from step to step, empty for most. `seen` holds what a step has
    scored so far, and nothing where there is no state.
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
        return self.jobs[0].algorithm


class GroupTrainer:
    """Trains the jobs of one group on one policy that stands at the task's initial distribution.

    Args:
        policy: with as many runs as jobs. jobs: equal budget, task and stage structure, sorted so that
            jobs of equal `Job.group()` are adjacent.
        score_initial: reference scores under the initial policy, cached across the groups of a task.
        truncate: what gives way in rows longer than the context.
        progress: called now and then. on_evaluation: called with (run, step, metrics) at every evaluation
            point; both off the training clock.
        processes: those that train the policy together, a single model. All build a trainer of their own from
            equal arguments. The first one alone samples and evaluates, unless they share the layers of the
            model: then all do, alike.
    """

    def __init__(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        score_initial: ReferenceScorer,
        *,
        truncate: str = "prompt",
        device: str = "cpu",
        progress: Progress | None = None,
        on_evaluation: Callable[[int, int, dict[str, float]], None] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.policy, self.jobs, self.score_initial, self.truncate = policy, jobs, score_initial, truncate
        self.budget = jobs[0].budget
        self.clock = Clock(device, lambda: float(getattr(policy, "flops", 0.0)))
        self.update_clock = Clock(device)
        self.memory = PeakMemory(device)
        self.processes = processes
        self.sharding: Sharding | None = getattr(policy, "sharding", None)
        self.evaluates = processes.first or self.sharding is not None
        self.bare = None if policy.stacked or not self.evaluates else BareStep(policy, self.budget.steps)
        self.progress, self.on_evaluation = progress, on_evaluation
        self.initial = policy.snapshot()
        self.alive = torch.ones(len(jobs), dtype=torch.bool, device=policy.parameters()[0].device)
        self.losses: dict[int, np.ndarray] = {}
        self.pairs_seen, self.tokens_seen = 0.0, 0
        self.optimizer: Stepper | None = None
        self.micro_batch = self.budget.micro_batch
        self.steps_done = 0
        self.rows = Rows(policy, truncate)
        self.watch: Evaluator | None = None
        self.reference = StageReference(policy)

    # ---------------------------------------------------------------- the whole run

    def run(self) -> list[Outcome]:
        """Train, evaluate at the points of `evaluation_steps`, and return one outcome per job, in the first
        process.
        """
        with self.clock.charge("prepare_s"):
            pools = [self.rows.pool(job) for job in self.jobs]
            self.tools = [
                CellTools(
                    self.policy,
                    r,
                    self.initial,
                    generator(job, "generate"),
                    self.budget,
                    self.rows.unseen(job),
                    self.truncate,
                    None
                    if self.policy.enumerable
                    else longest(self.policy, job.dataset, self.budget.max_new_tokens),
                )
                for r, job in enumerate(self.jobs)
            ]
            self.slices = self._slices([noisy for _, noisy in pools])
        if self.evaluates:
            with self.clock.charge("evaluate_s"):
                everything = RunBlock(self.jobs, slice(0, len(self.jobs)), self.jobs[0].algorithm, [])
                initial = self._score_initial(everything)
                clean = [rows for rows, _ in pools]
                self.watch = Evaluator(
                    self.policy,
                    self.jobs,
                    clean,
                    self.rows,
                    self.truncate,
                    initial,
                    self.initial,
                    self.on_evaluation,
                )
                self._evaluate(0)
                self._uncharged_cost()  # evaluation is nobody's preparation
        plan = self.slices[0].plain.stages()
        points = set(evaluation_steps(self.budget.steps))
        for number, (stage, steps) in enumerate(zip(plan, stage_steps(plan, self.budget.steps), strict=True)):
            if stage.solve:
                self._solve(number)
            elif steps:
                self._train_stage(number, stage, steps, points)
            if not bool(self.alive.any()):
                break
        if any(stage.solve for stage in plan):  # a policy in closed form stands still from the first step on
            with self.clock.charge("evaluate_s"):
                for self.steps_done in sorted(points - {0}):
                    self._evaluate(self.steps_done)
        self._settle()
        if self.watch is None or not self.processes.first:
            return []
        return [self._outcome(r, final, self.watch) for r, final in enumerate(self.watch.finals())]

    def _settle(self) -> None:
        """Add up what the processes have counted, and see that all hold the same weights."""
        if self.processes.alone:
            return
        whole = self.sharding.whole(self.policy.parameters()) if self.sharding else self.policy.parameters()
        norm = float(torch.stack([p.detach().double().norm() for p in whole]).norm())
        of_first = self.processes.from_first(norm)
        if norm != of_first and not (math.isnan(norm) and math.isnan(of_first)):
            raise RuntimeError(f"the weights of process {self.processes.rank} differ from those of the first")
        tokens, self.clock.flops = self.processes.total(
            torch.tensor([self.tokens_seen, self.clock.flops], dtype=torch.float64)
        ).tolist()
        self.tokens_seen = round(tokens)

    # ---------------------------------------------------------------- data

    def _slices(self, pools: Sequence[list[Example]]) -> list[RunBlock]:
        slices: list[RunBlock] = []
        start = 0
        dtype, device = self.policy.value_dtype, self.policy.parameters()[0].device
        while start < len(self.jobs):
            end = start
            while end < len(self.jobs) and self.jobs[end].group() == self.jobs[start].group():
                end += 1
            jobs = self.jobs[start:end]
            shaped = []
            for r in range(start, end):
                algorithm = self.jobs[r].algorithm
                rows = self.rows.accepted(pools[r], algorithm.accepts)
                self.tools[r].examples = rows
                on_policy = any(stage.refresh is not None or stage.solve for stage in algorithm.stages())
                shaped.append(rows if on_policy else self._shape(algorithm, rows, r))
            stacked = stack_configs([j.algorithm for j in jobs], dtype, device)
            state = begin(stacked, end - start, dtype, device)
            slices.append(RunBlock(jobs, slice(start, end), stacked, shaped, state=state))
            start = end
        return slices

    def _shape(self, algorithm: Algorithm, rows: Sequence[Example], r: int) -> Sequence[Example]:
        """What `shape_data` makes of the rows, the same for all processes."""
        if self.processes.alone or type(algorithm).shape_data is Algorithm.shape_data:
            return algorithm.shape_data(rows, self.tools[r])
        shaped = algorithm.shape_data(rows, self.tools[r]) if self.evaluates else None
        found: Sequence[Example] = self.processes.from_first(shaped)
        return found

    def _bind(self, part: RunBlock, number: int, stage: Stage, steps: int, t: int) -> StageData:
        """Encode a stage's data and draw its schedule; at every refresh, the data of the next batch of rows."""
        examples, schedules = [], []
        for r, job in zip(range(part.runs.start, part.runs.stop), part.jobs, strict=True):
            rows = part.shaped[r - part.runs.start]
            if stage.refresh is not None:
                rows = self._shape(
                    job.algorithm, self.rows.next_rows(job, rows, number, steps, t // stage.refresh), r
                )
            rows = job.algorithm.stage_examples(number, rows)
            if not rows:
                raise ValueError(f"{job.algorithm.name}: stage {number} has no examples")
            examples.append(rows)
            schedule = None if stage.refresh is not None else self.rows.schedule(job, rows, number, steps)
            if (
                schedule is None and not self.processes.alone
            ):  # a full batch that is shared needs its rows named
                schedule = np.arange(len(rows))[None]
            schedules.append(schedule)
        moved = self.reference.moved
        scorer = self.reference.scorer(part.runs, first=t == 0) if moved else self._score_initial(part)
        against = None
        if any(group.token_kl for group in part.plain.groups.values()):
            against = self.reference.state if moved else self.initial
        table = self.reference.table
        return bind(
            part.stacked,
            self.policy,
            part.runs,
            examples,
            schedules,
            scorer,
            self.budget.loss_over == "token",
            self.truncate,
            self.processes,
            self._unit(),
            against,
            None if table is None else table[part.runs],
        )

    def _score_initial(self, part: RunBlock) -> ReferenceScorer:
        def score(completions: Sequence[Sequence[Completion]], stacked: Any, used: Tensor | None) -> Scores:
            if not self.policy.stacked:
                return self.score_initial(completions, stacked, used)
            current = self.policy.snapshot()
            self.policy.restore(self.initial)
            scores = self.policy.score_all(stacked, used, runs=part.runs)
            self.policy.restore(current)
            return scores

        return score

    def _uncharged_cost(self) -> tuple[float, float]:
        """Seconds and operations that shared reference scores would have cost this cell alone, since the last
        asking.
        """
        seconds, operations = getattr(self.score_initial, "uncharged_cost", (0.0, 0.0))
        if operations:
            self.score_initial.uncharged_cost = (0.0, 0.0)  # type: ignore[attr-defined]
        return seconds, operations

    # ---------------------------------------------------------------- training

    def _solve(self, number: int) -> None:
        with self.clock.charge("prepare_s"):
            for part in self.slices:
                for r, job in zip(range(part.runs.start, part.runs.stop), part.jobs, strict=True):
                    rows = part.shaped[r - part.runs.start]
                    self.policy.tilt(r, job.algorithm.solve(rows, self.tools[r]))  # type: ignore[attr-defined]
        self.policy.notes["solved"] = True

    def _train_stage(self, number: int, stage: Stage, steps: int, points: set[int]) -> None:
        if stage.restart or self.optimizer is None:
            self.optimizer = self._make_optimizer()
            for part in self.slices:
                part.state = begin(
                    part.stacked, len(part.jobs), self.policy.value_dtype, self.policy.parameters()[0].device
                )
        self._begin_reference(stage)
        sampling_s = 0.0
        self.memory.start()
        for t in range(steps):
            if t == 0 or (stage.refresh and t % stage.refresh == 0):
                with self.clock.charge("prepare_s" if stage.refresh is None else "train_s"):
                    for part in self.slices:
                        part.data = self._bind(part, number, stage, steps, t)
                # scores that another cell has paid for are charged as if this one ran alone
                seconds, operations = self._uncharged_cost()
                self.clock.prepare_s += seconds
                self.clock.flops += operations
                if (
                    stage.refresh is not None
                ):  # sampling belongs to the training clock, not to the step's own time
                    sampling_s = self.clock.step_s.pop() / stage.refresh
            losses, bad = self._step_within_memory(t, warmup_scale(t, steps, self.budget.warmup))
            if self.steps_done in points:
                self.losses[self.steps_done] = losses
            self.steps_done += 1
            if bad is not None:
                self.alive &= ~bad
                if not bool(self.alive.any()):
                    return
            if self.progress:
                finite = losses[np.isfinite(losses)]
                self.progress(
                    self.steps_done, self.budget.steps, float(finite.mean()) if len(finite) else None
                )
            if self.bare and bad is None and self.steps_done in self.bare.points:
                with self.clock.charge("evaluate_s"):
                    chunks = [chunk.rows for chunk in self._chunks() if self.sharding or not chunk.padding]
                    requests = [
                        part.data.requests(t, rows)[0] for part in self.slices if part.data for rows in chunks
                    ]
                    self.bare.measure(
                        self.clock.step_s[-1] + sampling_s, self.update_clock.step_s[-1], requests
                    )
            if self.steps_done in points:
                self.memory.stop()
                with self.clock.charge("evaluate_s"):
                    if self.steps_done == self.budget.steps:
                        self.losses[self.steps_done] = self._losses_now(t)
                    self._evaluate(self.steps_done)
                self.memory.start()

    def _begin_reference(self, stage: Stage) -> None:
        """Hold the reference of a stage that begins, and what implied preferences are judged against."""
        algorithms = [part.plain for part in self.slices]
        # before the first step "previous" IS the initial policy, whose scores are shared
        with self.clock.charge("prepare_s"):
            self.reference.begin(
                stage, algorithms, moved=stage.reference == "previous" and self.steps_done > 0
            )
        if self.watch and any(claims_preference(algorithm) for algorithm in algorithms):
            with self.clock.charge("evaluate_s"):
                self.watch.refer(to_current=self.reference.moved)

    def _make_optimizer(self) -> Stepper:
        parameters = self.policy.parameters()
        name = self.jobs[0].optimizer
        if self.policy.stacked:
            lr = torch.tensor(
                [job.lr for job in self.jobs], dtype=self.policy.value_dtype, device=parameters[0].device
            )
            return StackedOptimizer(name, parameters, lr, self.budget.clip)
        return ModuleOptimizer(name, parameters, self.jobs[0].lr, self.budget.clip, self.sharding)

    def _step_within_memory(self, t: int, scale: float) -> tuple[np.ndarray, Tensor | None]:
        """One step; where memory runs out, the same step in smaller micro-batches, from then on."""
        updates = len(self.update_clock.step_s)
        while True:
            try:
                with self.clock.charge("train_s"):
                    return self._step(t, scale)
            except Exception as error:
                begun = len(self.update_clock.step_s) > updates  # half an update cannot be taken back
                if begun or not is_out_of_memory(error) or not self._halve():
                    raise
            # the failed attempt's tensors are gone by now, with its traceback
            self.clock.waive()
            if self.clock.device.startswith("cuda"):
                torch.cuda.empty_cache()

    def _halve(self) -> bool:
        """Halve the micro-batch of a language model, unless its loss would then be another one, or other
        processes wait.
        """
        part = self.slices[0]
        if part.data is None or part.data.schedule is None or self.policy.stacked or part.plain.batch_coupled:
            return False
        if not self.processes.alone:
            return False
        rows = part.data.schedule.batch // self._unit()
        now = min(self.micro_batch or rows, rows)
        if now == 1:
            return False
        self.micro_batch = (now + 1) // 2
        return True

    def _step(self, t: int, scale: float) -> tuple[np.ndarray, Tensor | None]:
        """One optimizer step for all slices; (loss per run, runs that have just diverged or None)."""
        assert self.optimizer is not None
        tokens = self.policy.tokens_processed
        per_run: list[Tensor] = []
        grads: list[Tensor] | None = None
        for part in self.slices:
            part.seen.clear()
        for chunk in self._chunks():
            self.policy.begin()
            losses = torch.cat([self._slice_loss(part, t, chunk) for part in self.slices])
            new = self._gradients(losses.sum())
            grads = new if grads is None else [a + b for a, b in zip(grads, new, strict=True)]
            per_run.append(losses.detach())
        assert grads is not None
        loss = torch.stack(per_run).sum(0) if len(per_run) > 1 else per_run[0]
        exchange_s = 0.0
        if self.sharding:  # gradients are those of all processes
            loss = self.processes.total(loss)
        elif (
            not self.processes.alone
        ):  # part of the update: a bare supervised step would exchange its gradients as well
            with self.update_clock.charge("train_s"):
                loss, *grads = self.processes.sum([loss, *grads])
            exchange_s = self.update_clock.step_s.pop()
        states = [
            next_state(part.stacked, part.seen, self.processes) if part.state else part.state
            for part in self.slices
        ]
        ok = torch.isfinite(loss) & self._finite(grads)
        bad = None if bool(ok.all()) else ~ok
        alive = None if bad is None and bool(self.alive.all()) else self.alive & ok
        if alive is None or bool(alive.any()):
            with self.update_clock.charge("train_s"):
                self.optimizer.step(grads, scale, alive)
            self.update_clock.step_s[-1] += exchange_s
        for part, state in zip(self.slices, states, strict=True):
            part.state = state
            part.seen.clear()
        self.tokens_seen += self.policy.tokens_processed - tokens
        self.pairs_seen += sum(part.data.rows_of(t) for part in self.slices if part.data)
        return loss.to("cpu", torch.float64).numpy(), bad

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        if self.policy.stacked:
            return list(
                torch.autograd.grad(loss, self.policy.parameters(), materialize_grads=True)
            )  # rows may all be absent
        return self.policy.gradients(loss)  # type: ignore[attr-defined,no-any-return]

    def _finite(self, grads: Sequence[Tensor]) -> Tensor:
        if self.policy.stacked:
            return torch.isfinite(torch.stack([grad.flatten(1).sum(1) for grad in grads])).all(0)
        norms = self.sharding.norm(grads) if self.sharding else torch.stack(torch._foreach_norm(list(grads)))
        return torch.isfinite(norms).all().reshape(1)

    def _chunks(self) -> list[Piece]:
        """Micro-batches of this process's rows of a step; one when they fit."""
        data = self.slices[0].data
        size = self.micro_batch
        if data is None or data.schedule is None or (not size and self.processes.alone):
            return [WHOLE]
        return self.processes.pieces(data.schedule.batch, self._unit(), size)

    def _unit(self) -> int:
        """Rows of a step that stay together."""
        part = self.slices[0]
        return 2 if halved(part.jobs[0], part.shaped[0]) else 1

    def _slice_loss(self, part: RunBlock, t: int, piece: Piece, grad: bool = True) -> Tensor:
        """Loss per run of one slice: the weighted sum of per-example values over the step's true total."""
        assert part.data is not None
        step = part.data.step(self.policy, t, piece, grad)
        if part.state:
            step = replace(step, state=part.state)
            if grad:
                part.seen.append(detached(step))
        values = per_example(part.stacked, step, grad)
        if part.plain.batch_coupled and not self.processes.alone and not part.data.exchanges:
            raise ValueError(
                f"{part.plain.name}: declares batch_coupled but sums nothing by step.all_reduce(), without which every process "
                "would take its own rows for the batch"
            )
        if step.weight is not None:
            values = torch.where(step.weight > 0, values * step.weight, 0.0)
        return values.sum(-1) / step.totals["examples"].squeeze(-1)

    @torch.no_grad()
    def _losses_now(self, t: int) -> np.ndarray:
        """The loss of the last batch after the last update."""
        total: Tensor | float = 0.0
        for chunk in self._chunks():
            self.policy.begin()
            total = total + torch.cat([self._slice_loss(part, t, chunk, grad=False) for part in self.slices])
        assert isinstance(total, Tensor)
        total = self.processes.total(total)
        return total.to("cpu", torch.float64).numpy()

    # ---------------------------------------------------------------- results

    def _evaluate(self, step: int) -> None:
        flops = None
        if not self.policy.stacked:
            spent = torch.tensor([self.clock.flops], dtype=torch.float64)
            of_first = self.processes.alone or (
                step == 0 and not self.sharding
            )  # at step 0 the others are not here
            flops = float(spent if of_first else self.processes.total(spent))
        if self.watch:
            parts = [(part.stacked, part.runs, part.state) for part in self.slices]
            self.watch.evaluate(step, self.alive.cpu().numpy(), parts, flops)

    def _outcome(self, r: int, final: dict[str, Any], watch: Evaluator) -> Outcome:
        rows = watch.rows(r, self.losses)
        # a parameter that stopped being finite at the very last update shows in the evaluation only
        alive = bool(self.alive[r]) and (not rows or rows[-1]["step"] == self.steps_done)
        clock = self.clock
        if clock.train_s > 0:
            final["pairs_per_s"] = self.pairs_seen / clock.train_s
            if self.tokens_seen:
                final["tokens_per_s"] = self.tokens_seen / clock.train_s
        final["prepare_s"] = clock.prepare_s
        if (
            not self.policy.stacked
        ):  # copies of one model side by side own neither the operations nor the memory
            costs = {
                "total_flops": clock.flops,
                "peak_memory_mb": self.memory.peak_mb,
                "overhead": self.bare and self.bare.ratio(),
            }
            final |= {name: value for name, value in costs.items() if value is not None}
        final |= {name: value for name, value in self.tools[r].noted.items() if reported(name)}
        notes = dict(self.policy.notes) | watch.notes(r)
        notes |= {name: value for name, value in self.tools[r].noted.items() if not reported(name)}
        part = next(part for part in self.slices if part.runs.start <= r < part.runs.stop)
        if part.data is not None and part.data.truncated:
            notes["truncated"] = part.data.truncated
        fitted = self.rows.facts(self.jobs[r])
        if fitted and (lost := fitted["equal_ids"] + sum(fitted["unfit"].values())):
            notes["dropped_rows"] = lost
        if self.micro_batch != self.budget.micro_batch:
            notes["micro_batch"] = self.micro_batch
        if any(group.mismatched for group in self.jobs[r].algorithm.groups.values()):
            notes["z0"] = "exact" if self.policy.enumerable else "mismatched"
            if (
                part.data is not None
                and part.data.partnerless is not None
                and part.data.partnerless[r - part.runs.start]
            ):
                notes["z0"] = "none"
        timing = {
            "prepare_s": clock.prepare_s,
            "train_s": clock.train_s,
            "evaluate_s": clock.evaluate_s,
            "steps": self.steps_done,
            "step_ms_median": clock.step_ms_median,
            "vectorised_runs": len(self.jobs),
        }
        return Outcome(
            "ok" if alive else "diverged", final, rows, timing, notes, watch.final_policy(r), fitted
        )
