"""How the trained weights lie: runs side by side, one model, or one model whose layers processes share.

The three make the same step. They differ in what a gradient is, in what processes exchange, and in whose
numbers decide that a step is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from xpo_bench.policy.base import Model, Policy
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.train.clock import Clock
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.job import Job
from xpo_bench.train.optim import ModuleOptimizer, StackedOptimizer, Stepper


class SideBySide:
    """The weights of several runs, each tensor with a leading runs axis; one process trains them."""

    sharded = False
    """Processes share the layers, so that all of them make every forward pass, evaluation included."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of a loss, zero where it does not reach."""
        # The loss is Σ over runs, and no run reads another's weights: its gradient holds every run's own.
        # The rows of a step may all be absent, and its loss then reach no weight.
        return list(torch.autograd.grad(loss, self.policy.parameters(), materialize_grads=True))

    def exchange(self, loss: Tensor, grads: list[Tensor], clock: Clock) -> tuple[Tensor, list[Tensor], float]:
        return loss, grads, 0.0

    def checked(self, grads: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Whether each run's gradient is finite, shape (runs,), and its norm if that is found on the way."""
        # a sum is finite only if its terms are: one number per run and tensor instead of a mask of its size
        return torch.isfinite(torch.stack([grad.flatten(1).sum(1) for grad in grads])).all(0), None

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        """Norm of each run's gradient over all tensors, shape (runs,)."""
        each = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads])
        norms: Tensor = torch.linalg.vector_norm(each, dim=0)
        return norms

    def optimizer(self, jobs: Sequence[Job]) -> Stepper:
        """The optimizer of the jobs, in its initial state."""
        # runs differ in their learning rates, so that a sweep over them is one computation: shape (runs,)
        lr = torch.tensor([job.lr for job in jobs], dtype=self.policy.value_dtype, device=self.policy.device)
        return StackedOptimizer(jobs[0].optimizer, self.policy.parameters(), lr, jobs[0].budget.clip)

    def whole(self) -> list[Tensor]:
        """Parameters that every process has whole, and that must be equal in all of them."""
        return self.policy.parameters()


class OneModel:
    """The weights of one model, whole in every process; the rows of a step are shared."""

    sharded = False

    def __init__(self, policy: Model, processes: Processes) -> None:
        self.policy, self.processes = policy, processes

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return self.policy.gradients(loss)

    def exchange(self, loss: Tensor, grads: list[Tensor], clock: Clock) -> tuple[Tensor, list[Tensor], float]:
        if self.processes.alone:
            return loss, grads, 0.0
        # part of the update: a plain loop would exchange its gradients as well
        with clock.charge("train_s"):
            loss, *grads = self.processes.sum([loss, *grads])
        return loss, grads, clock.step_s.pop()

    def checked(self, grads: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        each = torch.stack(torch._foreach_norm(list(grads)))
        return torch.isfinite(each).all().reshape(1), torch.linalg.vector_norm(each).reshape(1)

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(grads))))
        return norm.reshape(1)

    def optimizer(self, jobs: Sequence[Job]) -> Stepper:
        (job,) = jobs
        parameters, clip = self.policy.parameters(), job.budget.clip
        return ModuleOptimizer(job.optimizer, parameters, job.lr, clip, self.policy.sharding)

    def whole(self) -> list[Tensor]:
        return self.policy.parameters()


class SharedModel(OneModel):
    """The weights of one model, a share of every layer in each process."""

    sharded = True

    def __init__(self, policy: Model, processes: Processes, sharding: Sharding) -> None:
        super().__init__(policy, processes)
        self.sharding = sharding

    def exchange(self, loss: Tensor, grads: list[Tensor], clock: Clock) -> tuple[Tensor, list[Tensor], float]:
        # the backward pass has summed the gradients over all processes
        return self.processes.total(loss), grads, 0.0

    def checked(self, grads: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        norm = self.sharding.norm(grads).reshape(1)
        return torch.isfinite(norm), norm

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        return self.sharding.norm(grads).reshape(1)

    def whole(self) -> list[Tensor]:
        return self.sharding.whole(self.policy.parameters())


Weights: TypeAlias = SideBySide | OneModel


def weights_of(policy: Policy, processes: Processes) -> Weights:
    """How a policy's weights lie."""
    if not isinstance(policy, Model):
        return SideBySide(policy)
    if policy.sharding is None:
        return OneModel(policy, processes)
    return SharedModel(policy, processes, policy.sharding)
