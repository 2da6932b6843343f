"""The trainer: stages x steps for a group of jobs that share one policy. It knows no algorithm's name.

It keeps the calendar: which stage, which step, when its data is made and when it is evaluated. `preparation`
makes the data, `update` one step, `evaluation` the curves, and `outcome` what is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from xpo_bench.contract.settings import Stage
from xpo_bench.policy.base import Metered, Model, Policy
from xpo_bench.train.budget import evaluation_steps, rate_scale, stage_steps
from xpo_bench.train.clock import Clock
from xpo_bench.train.data_parallel import ALONE, Processes
from xpo_bench.train.evaluation.evaluator import Evaluator, OnEvaluation
from xpo_bench.train.job import Job, Outcome, Progress
from xpo_bench.train.memory import PeakMemory
from xpo_bench.train.outcome import Results
from xpo_bench.train.plain_loop import PlainLoop
from xpo_bench.train.preparation import Preparation
from xpo_bench.train.reference import Scorer, claims_preference
from xpo_bench.train.saturation import Saturation
from xpo_bench.train.update import Losses, Update
from xpo_bench.train.weights import weights_of


class GroupTrainer:
    """Trains the jobs of one group on one policy that stands at the task's initial distribution.

    A language model is a group of one run, or an ensemble of copies, through the same code as a table.

    Args:
        policy: with as many runs as jobs. jobs: equal budget, last step, task and stage structure, sorted so
            that jobs of equal `Job.group()` are adjacent.
        score_initial: reference scores under the initial policy, cached across the groups of a task; None for
            policies of several runs, which score their own.
        truncate: what is truncated in rows longer than the context.
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
        score_initial: Scorer | None,
        *,
        truncate: str = "prompt",
        device: str = "cpu",
        progress: Progress | None = None,
        on_evaluation: OnEvaluation | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.policy, self.jobs, self.processes = policy, jobs, processes
        self.progress, self.on_evaluation = progress, on_evaluation
        self.budget = jobs[0].budget
        self.last = jobs[0].last
        self.points = {step for step in evaluation_steps(self.budget.steps) if step < self.last} | {self.last}
        self.clock = Clock(device, (lambda: policy.flops) if isinstance(policy, Metered) else lambda: 0.0)
        self.memory = PeakMemory(device, policy.held_bytes()) if isinstance(policy, Model) else None
        self.weights = weights_of(policy, processes)
        self.evaluates = processes.first or self.weights.sharded
        self.preparation = Preparation(
            policy, jobs, score_initial, truncate=truncate, processes=processes, shapes=self.evaluates
        )
        self.update = Update(policy, jobs, self.preparation.blocks, self.weights, self.clock, processes)
        self.saturation = Saturation(self.budget.steps)
        self.plain_loop: PlainLoop | None = None
        if self.evaluates and isinstance(policy, Model):
            self.plain_loop = PlainLoop(policy, self.last)
        self.evaluator: Evaluator | None = None
        self.losses: dict[int, Losses] = {}
        self.steps_done = 0

    # ---------------------------------------------------------------- the whole run

    def run(self) -> list[Outcome]:
        """Train, evaluate at the points of `evaluation_steps`, and return one outcome per job.

        Processes other than the first return nothing.
        """
        with self.clock.charge("prepare_s"):
            self.preparation.load()
        if self.evaluates:
            with self.clock.charge("evaluate_s"):
                self.evaluator = self._make_evaluator()
                self._evaluate()
                self.preparation.take_uncharged()  # evaluation is nobody's preparation
        plan = self.preparation.blocks[0].plain.stages()
        for number, (stage, steps) in enumerate(zip(plan, stage_steps(plan, self.budget.steps), strict=True)):
            if stage.solve:
                with self.clock.charge("prepare_s"):
                    self.preparation.solve()
            elif steps:
                self._train_stage(number, stage, steps)
            if not self.update.some_alive or self.steps_done >= self.last:
                break
        if any(stage.solve for stage in plan):  # a policy in closed form stands still from the first step on
            with self.clock.charge("evaluate_s"):
                for step in sorted(self.points - {0}):
                    self.steps_done = step
                    self._evaluate()
        self._settle()
        if self.evaluator is None or not self.processes.first:
            return []
        results = Results(
            policy=self.policy,
            jobs=self.jobs,
            evaluator=self.evaluator,
            preparation=self.preparation,
            update=self.update,
            clock=self.clock,
            memory=self.memory,
            plain_loop=self.plain_loop,
            losses=self.losses,
            steps=self.steps_done,
        )
        return results.outcomes()

    def _settle(self) -> None:
        """Add up what the processes have counted, and see that all hold the same weights."""
        if self.processes.alone:
            return
        whole = self.weights.whole()
        norm = float(torch.stack([p.detach().double().norm() for p in whole]).norm())
        of_first = self.processes.from_first(norm)
        if norm != of_first and not (math.isnan(norm) and math.isnan(of_first)):
            raise RuntimeError(f"the weights of process {self.processes.rank} differ from those of the first")
        counted = torch.tensor([self.update.tokens_seen, self.clock.flops], dtype=torch.float64)
        tokens, self.clock.flops = self.processes.total(counted).tolist()
        self.update.tokens_seen = round(tokens)

    # ---------------------------------------------------------------- a stage

    def _train_stage(self, number: int, stage: Stage, steps: int) -> None:
        self.update.begin_stage(stage.restart)
        self._begin_reference(stage)
        sampling_s = 0.0
        anneal = self.budget.anneal if self.preparation.in_batches else 0.0
        if self.memory:
            self.memory.start()
        for t in range(steps):
            if t == 0 or (stage.refresh and t % stage.refresh == 0):
                sampling_s = self._make_data(number, stage, steps, t)
            # the gradient of the step that leads to an evaluation, and of the first one to compare it with
            measure = t == 0 or self.steps_done + 1 in self.points
            losses, finite = self.update.step(t, rate_scale(t, steps, self.budget.warmup, anneal), measure)
            if measure and self.update.norms is not None:
                self.saturation.note(self.steps_done, self.update.norms, begins=t == 0)
            if self.steps_done in self.points:
                self.losses[self.steps_done] = losses
            self.steps_done += 1
            if not finite and not self.update.some_alive:
                return
            self._report(losses)
            if finite:
                self._compare_with_plain(t, sampling_s)
            if self.steps_done in self.points:
                self._evaluate_step(t)
            if self.steps_done == self.last:  # the end of the run, or the checkpoint that it is stopped at
                return

    def _begin_reference(self, stage: Stage) -> None:
        """Hold the reference of a stage that begins, and what implied preferences are judged against."""
        # before the first step "previous" IS the initial policy, whose scores are shared
        moved = stage.reference == "previous" and self.steps_done > 0
        with self.clock.charge("prepare_s"):
            self.preparation.begin_stage(stage, moved)
        if self.evaluator and any(claims_preference(block.plain) for block in self.preparation.blocks):
            with self.clock.charge("evaluate_s"):
                self.evaluator.refer(to_current=moved)

    def _make_data(self, number: int, stage: Stage, steps: int, t: int) -> float:
        """Bind the data of the next steps; the seconds of it that each of them takes for its own."""
        with self.clock.charge("prepare_s" if stage.refresh is None else "train_s"):
            for block in self.preparation.blocks:
                self.preparation.bind(block, number, stage, steps, t)
        # scores that another cell has paid for are charged as if this one ran alone
        seconds, operations = self.preparation.take_uncharged()
        self.clock.prepare_s += seconds
        self.clock.flops += operations
        if stage.refresh is None:
            return 0.0
        # sampling belongs to the training clock, not to the step's own time
        return self.clock.step_s.pop() / stage.refresh

    def _report(self, losses: Losses) -> None:
        if self.progress:
            finite = losses[np.isfinite(losses)]
            mean = float(finite.mean()) if len(finite) else None
            self.progress(self.steps_done, self.last, mean)

    def _compare_with_plain(self, t: int, sampling_s: float) -> None:
        """Time a plain loop on the rows of the step that was just made, where one is due."""
        overhead = self.plain_loop
        if overhead is None or self.steps_done not in overhead.points:
            return
        with self.clock.charge("evaluate_s"):
            # padding meets collectives only: a process with whole layers need not compute it
            pieces = [piece for piece in self.update.pieces() if self.weights.sharded or not piece.padding]
            blocks = self.preparation.blocks
            requests = [block.bound.requests(t, piece.rows)[0] for block in blocks for piece in pieces]
            step_s = self.clock.step_s[-1] + sampling_s
            overhead.measure(step_s, self.update.own_clock.step_s[-1], requests)

    # ---------------------------------------------------------------- evaluation

    def _make_evaluator(self) -> Evaluator:
        prepared = self.preparation
        return Evaluator(
            self.policy,
            self.jobs,
            clean=prepared.clean,
            rows=prepared.rows,
            truncate=prepared.truncate,
            score_initial=prepared.score_initial(slice(0, len(self.jobs))),
            initial=prepared.initial,
            on_evaluation=self.on_evaluation,
        )

    def _evaluate_step(self, t: int) -> None:
        """Evaluate after step `t` of a stage; memory that evaluation takes is not that of training."""
        if self.memory:
            self.memory.stop()
        with self.clock.charge("evaluate_s"):
            if self.steps_done == self.last:
                self._judge(t)
                self.losses[self.steps_done] = self.update.losses_now(t)
            self._evaluate()
        if self.memory:
            self.memory.start()

    def _judge(self, t: int) -> None:
        """See whether the gradients have vanished, at the last step of all."""
        saturated = self.saturation.judge(self.update, t, self.preparation.initial)
        if self.evaluator and saturated is not None:
            self.evaluator.saturated(saturated.cpu().numpy())

    def _evaluate(self) -> None:
        flops = self._spent()  # all processes: their operations are added up
        if self.evaluator:
            alive = self.update.alive.cpu().numpy()
            self.evaluator.evaluate(self.steps_done, alive, self.preparation.blocks, flops)

    def _spent(self) -> float | None:
        """Operations charged to the cell so far, of all processes; None where they are not counted."""
        if not isinstance(self.policy, Metered):
            return None
        spent = torch.tensor([self.clock.flops], dtype=torch.float64)
        if self.steps_done == 0 and not self.weights.sharded:
            return float(spent)  # the other processes do not evaluate the initial policy, and add nothing yet
        return float(self.processes.total(spent))
