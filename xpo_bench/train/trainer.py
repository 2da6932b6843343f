"""The trainer: stages x steps for a group of jobs that share one policy. It knows no algorithm's name.

All runs of a group share the forward pass of a table and one optimizer step; each algorithm computes
its loss on its own slice of the runs. A language model is a group of one run through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xpo_bench.algorithm import Algorithm
from xpo_bench.data.dataset import flip_labels
from xpo_bench.metrics.base import Curve, find
from xpo_bench.metrics.regret import optimum_kl
from xpo_bench.policy.base import Policy
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.streams import stream
from xpo_bench.train.batches import row_schedule, usable
from xpo_bench.train.budget import evaluation_steps, stage_steps, warmup_scale
from xpo_bench.train.clock import Clock
from xpo_bench.train.evaluate import EvalSet, evaluate, prompt_weights, world_evaluation
from xpo_bench.train.job import Job, Outcome, Progress, as_accepted, stack_configs
from xpo_bench.train.language import OnPolicy
from xpo_bench.train.memory import PeakMemory
from xpo_bench.train.optim import ModuleOptimizer, StackedOptimizer, Stepper
from xpo_bench.train.overhead import BareStep
from xpo_bench.train.stage import StageData, bind
from xpo_bench.train.tools import CellTools
from xpo_bench.types import Completion, Example, Pair, Scores, Single, Stage

ReferenceScorer = Callable[[Sequence[Sequence[Completion]], Any, "Tensor | None"], Scores]
LM_HELDOUT_POINTS = 4
"""On a language model the held-out set is scored at the start, at quarters of the run and at the end."""


@dataclass
class Slice:
    """Consecutive runs of one algorithm whose configurations differ in float fields only."""

    jobs: Sequence[Job]
    runs: slice
    stacked: Algorithm
    shaped: list[Sequence[Example]]
    data: StageData | None = None

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
    ) -> None:
        self.policy, self.jobs, self.score_initial, self.truncate = policy, jobs, score_initial, truncate
        self.budget = jobs[0].budget
        self.clock = Clock(device, lambda: float(getattr(policy, "flops", 0.0)))
        self.update_clock = Clock(device)
        self.memory = PeakMemory(device)
        self.on_policy = None if policy.enumerable else OnPolicy(policy, jobs[0], policy.snapshot())
        self.bare = None if policy.enumerable else BareStep(policy, self.budget.steps)
        self.progress, self.on_evaluation = progress, on_evaluation
        self.initial = policy.snapshot()
        self.alive = torch.ones(len(jobs), dtype=torch.bool, device=policy.parameters()[0].device)
        self.losses: dict[int, np.ndarray] = {}
        self.pairs_seen, self.tokens_seen = 0.0, 0
        self.optimizer: Stepper | None = None
        self.steps_done = 0
        self._dropped: dict[int, set[int]] = {}
        self._orders: dict[tuple[int, int], np.ndarray | None] = {}

    # ---------------------------------------------------------------- the whole run

    def run(self) -> list[Outcome]:
        """Train, evaluate at the points of `evaluation_steps`, and return one outcome per job."""
        with self.clock.charge("prepare_s"):
            pools = [self._pool(job) for job in self.jobs]
            self.tools = [
                CellTools(self.policy, r, self.initial, self._rng(job, "generate"), self.budget, job.dataset.heldout)
                for r, job in enumerate(self.jobs)
            ]
            self.slices = self._slices([noisy for _, noisy in pools])
        with self.clock.charge("evaluate_s"):
            self._prepare_evaluation([clean for clean, _ in pools])
            self._evaluate(0)
            self._owed()  # evaluation is nobody's preparation
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
        return [self._outcome(r, final) for r, final in enumerate(self._finals())]

    # ---------------------------------------------------------------- data

    def _rng(self, job: Job, purpose: str, *more: str) -> np.random.Generator:
        names = (job.algorithm.name, *more) if purpose in ("generate", "reward") else more
        return stream(job.seed, job.task, purpose, *names)

    def _pool(self, job: Job) -> tuple[list[Example], list[Example]]:
        """(clean, trained-on) rows that this run can reach, in the seed's order, the same for every algorithm."""
        train = job.dataset.train
        noisy = flip_labels(train, job.budget.label_noise, self._rng(job, "noise"))
        order = self._rng(job, "order").permutation(len(train))
        reach = len(train) if job.budget.sampling == "replacement" else job.budget.steps * job.budget.batch_size
        hard = set(usable(train)) - self._too_long(train)
        kept = [i for i in order if i in hard][:reach]
        if job.budget.batch_size >= len(hard):  # every row at every step: file order
            kept = sorted(kept)
        if reach >= len(hard):  # all rows are trained on: the same ones are evaluated at every seed
            order = stream(0, job.task, "order", "evaluation").permutation(len(train))
        # evaluation rows are ones that training reaches, and ties, which are kept for calibration
        lost = self._too_long(train)
        reached = [i for i in order if i not in lost][: min(job.budget.eval_pairs, reach)]
        clean = [train[i] for i in sorted(reached)]
        return clean, [noisy[i] for i in kept]

    def _too_long(self, rows: Sequence[Example]) -> set[int]:
        """Rows with a completion that `--truncate drop` leaves out; they are neither trained on nor evaluated."""
        if self.truncate != "drop" or self.policy.enumerable:
            return set()
        key = id(rows)
        if key not in self._dropped:
            singles = as_accepted(rows, Single)
            lengths = self.policy.lengths(self.policy.encode([Completion(e.prompt, e.completion) for e in singles], "drop"))[0]  # type: ignore[union-attr]
            per_row = lengths.reshape(len(rows), -1).amin(1)
            self._dropped[key] = set(torch.nonzero(per_row == 0).flatten().tolist())
        return self._dropped[key]

    def _slices(self, pools: Sequence[list[Example]]) -> list[Slice]:
        slices: list[Slice] = []
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
                rows = as_accepted(pools[r], algorithm.accepts)
                self.tools[r].examples = rows
                on_policy = any(stage.refresh is not None or stage.solve for stage in algorithm.stages())
                shaped.append(rows if on_policy else algorithm.shape_data(rows, self.tools[r]))
            slices.append(Slice(jobs, slice(start, end), stack_configs([j.algorithm for j in jobs], dtype, device), shaped))
            start = end
        return slices

    def _bind(self, part: Slice, number: int, stage: Stage, steps: int, t: int) -> StageData:
        """Encode a stage's data and draw its schedule; at every refresh, the data of the next batch of rows."""
        examples, schedules = [], []
        for r, job in zip(range(part.runs.start, part.runs.stop), part.jobs, strict=True):
            rows = part.shaped[r - part.runs.start]
            if stage.refresh is not None:
                rows = job.algorithm.shape_data(self._next_rows(job, rows, number, steps, t // stage.refresh), self.tools[r])
            rows = job.algorithm.stage_examples(number, rows)
            if not rows:
                raise ValueError(f"{job.algorithm.name}: stage {number} has no examples")
            examples.append(rows)
            schedules.append(None if stage.refresh is not None else self._schedule(job, rows, number, steps))
        # before the first step "previous" IS the initial policy, whose scores are shared
        moved = stage.reference == "previous" and self.steps_done > 0
        scorer = self._score_current(part) if moved else self._score_initial(part)
        return bind(
            part.stacked, self.policy, part.runs, examples, schedules, scorer, self.budget.loss_over == "token", self.truncate
        )

    def _next_rows(self, job: Job, rows: Sequence[Example], number: int, steps: int, refresh: int) -> Sequence[Example]:
        """The batch of rows whose prompts are sampled at a refresh: the same draws as other algorithms' batches."""
        if job.budget.batch_size >= len(rows):
            return rows
        key = (id(rows), number)
        if key not in self._orders:
            self._orders[key] = self._schedule(job, rows, number, steps)
        drawn = self._orders[key]
        return rows if drawn is None else [rows[i] for i in drawn[refresh % len(drawn)]]

    def _schedule(self, job: Job, rows: Sequence[Example], number: int, steps: int) -> np.ndarray | None:
        halves = _halved(job, rows)
        units = len(rows) // 2 if halves else len(rows)
        rng = self._rng(job, "order", f"stage {number}")
        drawn = row_schedule(units, job.budget.batch_size, steps, job.budget.sampling, rng)
        if drawn is None and self.budget.micro_batch:  # a full batch that is cut into pieces needs its rows named
            drawn = np.arange(units)[None]
        if drawn is None or not halves:
            return drawn
        return np.stack([2 * drawn, 2 * drawn + 1], -1).reshape(len(drawn), -1)  # both halves of a pair in one step

    def _score_current(self, part: Slice) -> ReferenceScorer:
        return lambda completions, stacked, used: self.policy.score_all(stacked, used, runs=part.runs)

    def _score_initial(self, part: Slice) -> ReferenceScorer:
        def score(completions: Sequence[Sequence[Completion]], stacked: Any, used: Tensor | None) -> Scores:
            if isinstance(self.policy, TabularPolicy):
                current = self.policy.snapshot()
                self.policy.restore(self.initial)
                scores = self.policy.score_all(stacked, used, runs=part.runs)
                self.policy.restore(current)
                return scores
            return self.score_initial(completions, stacked, used)

        return score

    def _owed(self) -> tuple[float, float]:
        """Seconds and operations that shared reference scores would have cost this cell alone, since the last asking."""
        seconds, operations = getattr(self.score_initial, "owed", (0.0, 0.0))
        if seconds:
            self.score_initial.owed = (0.0, 0.0)  # type: ignore[attr-defined]
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
        sampling_s = 0.0
        self.memory.start()
        for t in range(steps):
            if t == 0 or (stage.refresh and t % stage.refresh == 0):
                with self.clock.charge("prepare_s" if stage.refresh is None else "train_s"):
                    for part in self.slices:
                        part.data = self._bind(part, number, stage, steps, t)
                # scores that another cell has paid for are charged as if this one ran alone
                seconds, operations = self._owed()
                self.clock.prepare_s += seconds
                self.clock.flops += operations
                if stage.refresh is not None:  # sampling belongs to the training clock, not to the step's own time
                    sampling_s = self.clock.step_s.pop() / stage.refresh
            with self.clock.charge("train_s"):
                losses, bad = self._step(t, warmup_scale(t, steps, self.budget.warmup))
            if self.steps_done in points:
                self.losses[self.steps_done] = losses
            self.steps_done += 1
            if bad is not None:
                self.alive &= ~bad
                if not bool(self.alive.any()):
                    return
            if self.progress:
                finite = losses[np.isfinite(losses)]
                self.progress(self.steps_done, self.budget.steps, float(finite.mean()) if len(finite) else None)
            if self.bare and bad is None and self.steps_done in self.bare.points:
                with self.clock.charge("evaluate_s"):
                    requests = [part.data.requests(t, chunk)[0] for part in self.slices if part.data for chunk in self._chunks(t)]
                    self.bare.compare(self.clock.step_s[-1] + sampling_s, self.update_clock.step_s[-1], requests)
            if self.steps_done in points:
                self.memory.stop()
                with self.clock.charge("evaluate_s"):
                    if self.steps_done == self.budget.steps:
                        self.losses[self.steps_done] = self._losses_now(t)
                    self._evaluate(self.steps_done)
                self.memory.start()

    def _make_optimizer(self) -> Stepper:
        parameters = self.policy.parameters()
        name = self.jobs[0].optimizer
        if isinstance(self.policy, TabularPolicy):
            lr = torch.tensor([job.lr for job in self.jobs], dtype=self.policy.value_dtype, device=self.policy.device)
            return StackedOptimizer(name, parameters[0], lr)
        return ModuleOptimizer(name, parameters, self.jobs[0].lr, self.budget.clip)

    def _step(self, t: int, scale: float) -> tuple[np.ndarray, Tensor | None]:
        """One optimizer step for all slices; (loss per run, runs that have just diverged or None)."""
        assert self.optimizer is not None
        parameters = self.policy.parameters()
        tokens = self.policy.tokens_processed
        per_run: list[Tensor] = []
        grads: list[Tensor] | None = None
        for chunk in self._chunks(t):
            self.policy.begin()
            losses = torch.cat([self._slice_loss(part, t, chunk) for part in self.slices])
            new = torch.autograd.grad(losses.sum(), parameters)
            grads = list(new) if grads is None else [a + b for a, b in zip(grads, new, strict=True)]
            per_run.append(losses.detach())
        assert grads is not None
        loss = torch.stack(per_run).sum(0) if len(per_run) > 1 else per_run[0]
        ok = torch.isfinite(loss) & self._finite(grads)
        bad = None if bool(ok.all()) else ~ok
        alive = None if bad is None and bool(self.alive.all()) else self.alive & ok
        if alive is None or bool(alive.any()):
            with self.update_clock.charge("train_s"):
                self.optimizer.step(grads, scale, alive)
        self.tokens_seen += self.policy.tokens_processed - tokens
        self.pairs_seen += sum(part.data.pairs_per_step for part in self.slices if part.data)
        return loss.to("cpu", torch.float64).numpy(), bad

    def _finite(self, grads: Sequence[Tensor]) -> Tensor:
        if isinstance(self.policy, TabularPolicy):
            return torch.isfinite(grads[0].flatten(1).sum(1))
        norms = torch.stack(torch._foreach_norm(list(grads)))
        return torch.isfinite(norms).all().reshape(1)

    def _chunks(self, t: int) -> list[slice | None]:
        """Micro-batches of the step's rows; one when the whole batch fits."""
        data = self.slices[0].data
        size = self.budget.micro_batch
        if not size or data is None or data.schedule is None:
            return [None]
        part = self.slices[0]
        size *= 2 if _halved(part.jobs[0], part.shaped[0]) else 1
        return [slice(i, i + size) for i in range(0, data.schedule.shape[-1], size)]

    def _slice_loss(self, part: Slice, t: int, rows: slice | None, grad: bool = True) -> Tensor:
        """Loss per run of one slice: the weighted sum of per-example values over the step's true total."""
        assert part.data is not None
        step = part.data.step(self.policy, t, rows, grad)
        values = part.stacked.loss(step)
        if not isinstance(values, Tensor):
            raise TypeError(f"{part.plain.name}: loss() returned {type(values).__name__}, expected a tensor")
        expected = next(iter(step.policy.values())).mask.shape[:-1]
        if values.shape != expected:
            raise ValueError(
                f"{part.plain.name}: loss() returned shape {tuple(values.shape)}, expected per-example {tuple(expected)}"
            )
        if grad and not values.requires_grad:  # in company the others' gradients would hide it
            raise ValueError(f"{part.plain.name}: loss() carries no gradient; it must depend on step.policy, not detached")
        if step.weight is not None:
            values = torch.where(step.weight > 0, values * step.weight, 0.0)
        return values.sum(-1) / step.totals["examples"].squeeze(-1)

    @torch.no_grad()
    def _losses_now(self, t: int) -> np.ndarray:
        """The loss of the last batch after the last update."""
        total: Tensor | float = 0.0
        for chunk in self._chunks(t):
            self.policy.begin()
            total = total + torch.cat([self._slice_loss(part, t, chunk, grad=False) for part in self.slices])
        assert isinstance(total, Tensor)
        return total.to("cpu", torch.float64).numpy()

    # ---------------------------------------------------------------- evaluation

    def _prepare_evaluation(self, clean: list[list[Example]]) -> None:
        limit = self.budget.heldout_pairs
        heldout = [self._heldout(job)[:limit] for job in self.jobs]
        self.curve, self.heldout_curve = Curve(self.budget.steps), Curve(self.budget.steps)
        initial = self._score_initial(Slice(self.jobs, slice(0, len(self.jobs)), self.jobs[0].algorithm, []))
        self.eval_set = EvalSet.build(self.policy, list(clean), self.truncate, initial)
        self.heldout_set = None
        if self._seen(heldout):
            self.heldout_set = EvalSet.build(self.policy, heldout, self.truncate, initial)
        self.prompt_weight = (
            prompt_weights(self.policy, [job.dataset.train for job in self.jobs]) if self.policy.enumerable else None
        )
        strengths = [getattr(j.algorithm, j.algorithm.kl_strength) if j.algorithm.kl_strength else np.nan for j in self.jobs]
        self.kl_strength = None if all(np.isnan(strengths)) else np.array(strengths, dtype=np.float64)
        self.optimum_kl = None
        if self.prompt_weight is not None and self.kl_strength is not None:
            self.optimum_kl = optimum_kl(world_evaluation(self.policy, self.prompt_weight), self.kl_strength)

    def _heldout(self, job: Job) -> Sequence[Example]:
        """Held-out rows in a fixed random order, the same for every seed: files are often sorted by prompt."""
        rows = job.dataset.heldout
        lost = self._too_long(rows) if rows else set()
        order = stream(0, job.task, "order", "heldout").permutation(len(rows))
        return [rows[i] for i in order if i not in lost]

    def _seen(self, heldout: Sequence[Sequence[Example]]) -> bool:
        """Whether held-out metrics mean anything: a table knows nothing of prompts that it never saw."""
        if not all(heldout):
            return False
        if not self.policy.enumerable:
            return True
        return all(
            {e.prompt for e in rows} <= {e.prompt for e in job.dataset.train}
            for rows, job in zip(heldout, self.jobs, strict=True)
        )

    def _evaluate(self, step: int) -> None:
        slices = [(part.stacked, part.runs) for part in self.slices]
        alive = self.alive.cpu().numpy()
        world = world_evaluation(self.policy, self.prompt_weight) if self.prompt_weight is not None else None
        sampled: dict[str, np.ndarray] = {}
        if self.on_policy and step in self.on_policy.points and bool(self.alive.all()):
            sampled = {name: np.array([value]) for name, value in self.on_policy.measure().items()}
        if self.eval_set:
            found = evaluate(self.policy, self.eval_set, step, slices, self.kl_strength, world, step == 0)
            self.curve.add(found, alive, sampled)
        if self.heldout_set and self._heldout_due(step):
            self.heldout_curve.add(evaluate(self.policy, self.heldout_set, step, slices, None, None, step == 0), alive)
        if self.on_evaluation and self.eval_set:
            for r in range(len(self.jobs)):
                self.on_evaluation(r, step, {k: v for k, v in self.curve.rows(r)[-1].items() if k != "step" and v is not None})

    def _heldout_due(self, step: int) -> bool:
        if self.policy.enumerable:
            return True
        quarters = {round(k * self.budget.steps / LM_HELDOUT_POINTS) for k in range(LM_HELDOUT_POINTS + 1)}
        return step in quarters

    def _finals(self) -> list[dict[str, Any]]:
        """Final metrics per run, training and held-out, without what does not apply."""
        out: list[dict[str, Any]] = [{} for _ in self.jobs]
        for prefix, curve, present in (("", self.curve, self.eval_set), ("heldout_", self.heldout_curve, self.heldout_set)):
            if not present:
                continue
            for name, values in curve.final().items():
                for r, value in enumerate(values):
                    if math.isfinite(value):
                        out[r][prefix + name] = float(value)
                    elif name in ("collapse_step", "collapse_slope"):
                        out[r][prefix + name] = None
        for metrics in out:
            if "reward_accuracy" in metrics and "heldout_reward_accuracy" in metrics:
                metrics["generalization_gap"] = metrics["reward_accuracy"] - metrics["heldout_reward_accuracy"]
        return out

    def _outcome(self, r: int, final: dict[str, Any]) -> Outcome:
        rows = [dict(row) for row in self.curve.rows(r)] if self.eval_set else []
        by_step = {row["step"]: row for row in rows}
        if self.heldout_set:
            for row in self.heldout_curve.rows(r):
                by_step[row["step"]].update({f"heldout_{k}": v for k, v in row.items() if k != "step"})
        for step, losses in self.losses.items():
            if step in by_step and math.isfinite(losses[r]):
                by_step[step]["loss"] = float(losses[r])
        # a parameter that stopped being finite at the very last update shows in the evaluation only
        alive = bool(self.alive[r]) and (not rows or rows[-1]["step"] == self.steps_done)
        clock = self.clock
        if clock.train_s > 0:
            final["pairs_per_s"] = self.pairs_seen / clock.train_s
            if self.tokens_seen:
                final["tokens_per_s"] = self.tokens_seen / clock.train_s
        final["prepare_s"] = clock.prepare_s
        if not self.policy.enumerable:
            costs = {
                "total_flops": clock.flops,
                "peak_memory_mb": self.memory.peak_mb,
                "overhead": self.bare and self.bare.ratio(),
            }
            final |= {name: value for name, value in costs.items() if value is not None}
        final |= {name: value for name, value in self.tools[r].noted.items() if find(name)}
        notes = dict(self.policy.notes) | self.curve.notes(r)
        if self.optimum_kl is not None and math.isfinite(self.optimum_kl[r]):
            notes["optimum_kl"] = float(self.optimum_kl[r])
        notes |= {name: value for name, value in self.tools[r].noted.items() if not find(name)}
        data = next(part.data for part in self.slices if part.runs.start <= r < part.runs.stop)
        if data is not None and data.truncated:
            notes["truncated"] = data.truncated
        if lost := sum(len(rows) for rows in self._dropped.values()):
            notes["dropped_rows"] = lost
        if any(group.mismatched for group in self.jobs[r].algorithm.groups.values()):
            notes["z0"] = "exact" if self.policy.enumerable else "mismatched"
        if self.on_policy:
            notes |= self.on_policy.notes
        policy = self.policy.final_policy(r) if isinstance(self.policy, TabularPolicy) else None
        timing = {
            "prepare_s": clock.prepare_s,
            "train_s": clock.train_s,
            "evaluate_s": clock.evaluate_s,
            "steps": self.steps_done,
            "step_ms_median": clock.step_ms_median,
            "vectorised_runs": len(self.jobs),
        }
        return Outcome("ok" if alive else "diverged", final, rows, timing, notes, policy)


def _halved(job: Job, rows: Sequence[Example]) -> bool:
    """Whether each row of the data stands as two singles, which stay together."""
    return isinstance(rows[0], Single) and isinstance(job.dataset.train[0], Pair)
