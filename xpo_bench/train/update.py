"""One optimizer step of a group of runs: losses, micro-batches, gradients, what is finite, the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Step
from xpo_bench.policy.base import Joint, Policy
from xpo_bench.train.algorithm_state import next_state
from xpo_bench.train.clock import Clock
from xpo_bench.train.data_parallel import WHOLE, Piece, Processes
from xpo_bench.train.job import Job
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.optim import Stepper
from xpo_bench.train.run_block import RunBlock
from xpo_bench.train.score_ops import detached
from xpo_bench.train.weights import Weights

Losses: TypeAlias = np.ndarray
"""The loss of every run, shape (runs,), float64."""


class Update:
    """Makes the steps of a group, one at a time.

    All runs share the forward pass of a policy and one update; each algorithm computes its loss on its own
    block of the runs.

    Args:
        blocks: the runs by algorithm; the list is read at every step.
        clock: charged with the steps, failed attempts aside.

    Attributes:
        alive: runs that have not diverged, shape (runs,). own_clock: the optimizer's part of the steps.
        micro_batch: data rows per forward pass, 0 for the whole batch; halved where memory runs out.
        norms: of the runs' gradients at the last step that was measured, before clipping, shape (runs,).
    """

    def __init__(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        blocks: list[RunBlock],
        weights: Weights,
        clock: Clock,
        processes: Processes,
    ) -> None:
        self.policy, self.jobs, self.blocks, self.weights = policy, jobs, blocks, weights
        self.clock, self.own_clock = clock, Clock(clock.device)
        self.processes = processes
        self.micro_batch = jobs[0].budget.micro_batch
        self.alive = torch.ones(len(jobs), dtype=torch.bool, device=policy.device)
        self.pairs_seen, self.tokens_seen = 0.0, 0
        self.optimizer: Stepper | None = None
        self.norms: Tensor | None = None

    @property
    def some_alive(self) -> bool:
        """Whether there is a run left to train."""
        return bool(self.alive.any())

    def begin_stage(self, restart: bool) -> None:
        """A stage begins; with `restart`, and the first one anyway, with fresh optimizers and states."""
        if not restart and self.optimizer is not None:
            return
        self.optimizer = self.weights.optimizer(self.jobs)
        for block in self.blocks:
            block.restart(self.policy.value_dtype, self.policy.device)

    # ---------------------------------------------------------------- a step

    def step(self, t: int, scale: float, measure: bool = False) -> tuple[Losses, bool]:
        """Step `t` of a stage, at `scale` times the learning rates.

        Where memory runs out, the same step is made in smaller micro-batches, as are all later ones.

        Args:
            measure: keep the norms of the runs' gradients in `norms`.

        Returns:
            the losses, and whether all runs' losses and gradients are finite. Runs whose are not stay as they
            are, and are `alive` no more.
        """
        updates = len(self.own_clock.step_s)
        while True:
            try:
                with self.clock.charge("train_s"):
                    losses, bad = self._step(t, scale, measure)
                break
            except Exception as error:
                begun = len(self.own_clock.step_s) > updates  # half an update cannot be taken back
                if begun or not is_out_of_memory(error) or not self._halve():
                    raise
            # the failed attempt's tensors are gone by now, with its traceback
            self.clock.waive()
            if self.clock.device.startswith("cuda"):
                torch.cuda.empty_cache()
        if bad is None:
            return losses, True
        self.alive &= ~bad
        return losses, False

    def _step(self, t: int, scale: float, measure: bool) -> tuple[Losses, Tensor | None]:
        """(loss per run, runs that have just diverged or None)."""
        assert self.optimizer is not None
        tokens = self.policy.tokens_processed
        loss, grads = self._gradients(t)
        loss, grads, exchange_s = self.weights.exchange(loss, grads, self.own_clock)
        finite, norm = self.weights.checked(grads)
        if measure:
            self.norms = self.weights.norm(grads) if norm is None else norm
        states = [self._next_state(block) for block in self.blocks]
        ok = torch.isfinite(loss) & finite
        bad = None if bool(ok.all()) else ~ok
        # None: no run needs to be told from the others, which saves a copy of every parameter
        alive = None if bad is None and bool(self.alive.all()) else self.alive & ok
        if alive is None or bool(alive.any()):
            clipped = self.optimizer.clipped(grads, norm)
            with self.own_clock.charge("train_s"):
                self.optimizer.step(clipped, scale, alive)
            self.own_clock.step_s[-1] += exchange_s
        for block, state in zip(self.blocks, states, strict=True):
            block.state = state
            block.seen.clear()
        self.tokens_seen += self.policy.tokens_processed - tokens
        self.pairs_seen += sum(block.bound.rows_of(t) for block in self.blocks)
        return loss.to("cpu", torch.float64).numpy(), bad

    def _gradients(self, t: int) -> tuple[Tensor, list[Tensor]]:
        """Losses per run and gradients, added up over this process's micro-batches.

        Each micro-batch is divided by the totals of the whole step (`StageData._totals`): with L = Σ_b L_b
        the gradient is ∇L = Σ_b ∇L_b, which is exact and no mean of means.
        """
        losses: list[Tensor] = []
        grads: list[Tensor] | None = None
        for block in self.blocks:
            block.seen.clear()
        for piece in self.pieces():
            self.policy.begin()
            if isinstance(self.policy, Joint):
                blocks = self.blocks
                self.policy.expect([(b.runs, b.bound.plain_requests(t, piece.rows)) for b in blocks])
            loss = self._losses(t, piece, grad=True)
            new = self.weights.gradients(loss.sum())
            grads = new if grads is None else [a + b for a, b in zip(grads, new, strict=True)]
            losses.append(loss.detach())
        assert grads is not None
        return torch.stack(losses).sum(0) if len(losses) > 1 else losses[0], grads

    def _next_state(self, block: RunBlock) -> Mapping[str, Tensor]:
        return next_state(block.stacked, block.seen, self.processes) if block.state else block.state

    # ---------------------------------------------------------------- micro-batches

    def pieces(self) -> list[Piece]:
        """Micro-batches of this process's rows of a step; one when they fit."""
        block = self.blocks[0]
        schedule = block.bound.schedule
        if schedule is None or (not self.micro_batch and self.processes.alone):
            return [WHOLE]
        return self.processes.pieces(schedule.batch, block.unit, self.micro_batch)

    def _halve(self) -> bool:
        """Halve the micro-batch of a model, unless its loss would be another one, or other processes wait."""
        block = self.blocks[0]
        schedule = block.bound.schedule
        if schedule is None or self.policy.stacked or block.plain.batch_coupled or not self.processes.alone:
            return False
        rows = schedule.batch // block.unit
        now = min(self.micro_batch or rows, rows)
        if now == 1:
            return False
        self.micro_batch = (now + 1) // 2
        return True

    # ---------------------------------------------------------------- losses

    def _losses(self, t: int, piece: Piece, grad: bool) -> Tensor:
        """The loss of every run on a micro-batch, shape (runs,)."""
        losses = [self._block_loss(block, t, piece, grad) for block in self.blocks]
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def _block_loss(self, block: RunBlock, t: int, piece: Piece, grad: bool) -> Tensor:
        """Loss per run of one block: the weighted sum of per-example values over the step's true total."""
        data = block.bound
        step = data.step(self.policy, t, piece, grad)
        if block.state:
            step = replace(step, state=block.state)
            if grad:
                block.seen.append(detached(step))
        values = per_example(block.stacked, step, grad)
        if block.plain.batch_coupled and step.shared is not None and not data.exchanges:
            raise ValueError(
                f"{block.plain.name}: declares batch_coupled but sums nothing by step.all_reduce(), "
                "without which every process would take its own rows for the batch"
            )
        if step.weight is not None:
            # not a product alone: the value of an absent row may be infinite, and 0·∞ is not 0
            values = torch.where(step.weight > 0, values * step.weight, 0.0)
        return values.sum(-1) / step.totals["examples"].squeeze(-1)

    @torch.no_grad()
    def losses_now(self, t: int) -> Losses:
        """The losses of the batch of step `t` under the policy as it stands."""
        total: Tensor | float = 0.0
        for piece in self.pieces():
            self.policy.begin()
            total = total + self._losses(t, piece, grad=False)
        assert isinstance(total, Tensor)
        return self.processes.total(total).to("cpu", torch.float64).numpy()

    def norms_now(self, t: int) -> Tensor:
        """Norms of the runs' gradients on the batch of step `t` under the policy as it stands: (runs,)."""
        loss, grads = self._gradients(t)
        _, grads, _ = self.weights.exchange(loss, grads, Clock(self.clock.device))
        for block in self.blocks:
            block.seen.clear()
        return self.weights.norm(grads)


def per_example(algorithm: Algorithm, step: Step, grad: bool) -> Tensor:
    """The algorithm's losses, shape (..., N).

    Args:
        grad: they have to carry a gradient. Among other algorithms' losses one without would go unnoticed.

    Raises:
        TypeError, ValueError: what is returned is not that.
        RuntimeError: torch's settings are not what they were, and would be those of the algorithms that
            compute in the same process; they are put back.
    """
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    values = algorithm.loss(step)
    if (torch.get_default_dtype(), torch.is_grad_enabled()) != before:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])
        raise RuntimeError(f"{algorithm.name}: loss() changes torch's default dtype or grad mode")
    if not isinstance(values, Tensor):
        raise TypeError(f"{algorithm.name}: loss() returned {type(values).__name__}, expected a tensor")
    mask = next(iter(step.policy.values())).mask
    if values.shape != mask.shape[:-1]:
        raise ValueError(
            f"{algorithm.name}: loss() returned shape {tuple(values.shape)}, "
            f"expected per-example {tuple(mask.shape[:-1])}"
        )
    if values.device != mask.device:
        raise ValueError(
            f"{algorithm.name}: loss() returned a tensor on {values.device}, expected {mask.device}"
        )
    if not values.is_floating_point():
        raise TypeError(f"{algorithm.name}: loss() returned {values.dtype}, expected floating-point numbers")
    if grad and not values.requires_grad:
        raise ValueError(
            f"{algorithm.name}: loss() carries no gradient; it must depend on step.policy, not detached"
        )
    return values
