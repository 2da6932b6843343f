"""Optimizers: torch.optim for a network, and one with a learning rate and a divergence flag PER RUN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from xpo_bench.contract.settings import Optimizer
from xpo_bench.policy.language.sharding import Sharding


class Stepper(Protocol):
    """One update from gradients."""

    def clipped(self, grads: Sequence[Tensor], norm: Tensor | None = None) -> Sequence[Tensor]:
        """Gradients within the limit, in place or not; `norm` is theirs where it is known already."""
        ...

    def step(self, grads: Sequence[Tensor], scale: float, alive: Tensor | None) -> None:
        """Apply gradients; `scale` multiplies every learning rate, runs not `alive` stay as they are."""
        ...


class StackedOptimizer:
    """SGD, Adam, AdamW or RMSprop for runs side by side; torch.optim's rules and defaults, no weight decay.

    Args:
        parameters: tensors of shape (runs, ...). lr: learning rate per run, shape (runs,).
        clip: limit of each run's own gradient norm over all tensors; 0 is off.
    """

    def __init__(self, name: Optimizer, parameters: Sequence[Tensor], lr: Tensor, clip: float = 0.0) -> None:
        self.parameters, self.lr, self.clip = list(parameters), lr, clip
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.count = 0
        self.rule: Callable[[Tensor, Tensor, Tensor], Tensor] = {
            "sgd": self._sgd,
            "adam": self._adam,
            "adamw": self._adam,
            "rmsprop": self._rmsprop,
        }[name]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], scale: float, alive: Tensor | None) -> None:
        self.count += 1
        for parameter, grad, first, second in zip(
            self.parameters, grads, self.first, self.second, strict=True
        ):
            # θ_r ← θ_r − η_r·u_r for each run r: one operation for all runs, η of shape (runs, 1, ..., 1)
            update = self.rule(grad, first, second).mul_(_per_run(self.lr, parameter) * scale)
            if alive is None:
                parameter.sub_(update)
            else:
                parameter.copy_(torch.where(_per_run(alive, parameter), parameter - update, parameter))

    def clipped(self, grads: Sequence[Tensor], norm: Tensor | None = None) -> Sequence[Tensor]:
        """Each run's gradient within the limit, by its own norm."""
        if not self.clip:
            return grads
        # each run by its own norm: a run that explodes must not shrink the steps of the others
        norm = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads]).norm(dim=0)
        scale = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        return [grad * _per_run(scale, grad) for grad in grads]

    def _sgd(self, grad: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return grad.clone()

    def _adam(
        self,
        grad: Tensor,
        first: Tensor,
        second: Tensor,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> Tensor:
        # m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², u = (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε), in torch's order of
        # operations, so that one run equals torch.optim.Adam to rounding (Kingma & Ba 2015, Alg. 1)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = second.sqrt().div_((1 - beta2**self.count) ** 0.5).add_(eps)
        return first.div(denominator).div_(1 - beta1**self.count)

    def _rmsprop(
        self, grad: Tensor, first: Tensor, second: Tensor, alpha: float = 0.99, eps: float = 1e-8
    ) -> Tensor:
        second.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        return grad / second.sqrt().add_(eps)


def _per_run(values: Tensor, like: Tensor) -> Tensor:
    """Shape (runs,) to (runs, 1, ..., 1)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


class ModuleOptimizer:
    """torch's optimizers on the parameters of one network, with gradient-norm clipping (0 is off).

    Args:
        sharding: where the parameters are shares, what knows the norm of whole gradients.
    """

    def __init__(
        self,
        name: Optimizer,
        parameters: list[Tensor],
        lr: float,
        clip: float = 0.0,
        sharding: Sharding | None = None,
    ) -> None:
        self.lr, self.clip = lr, clip
        self.norm: Callable[[list[Tensor]], Tensor] = (
            sharding.norm if sharding else torch.nn.utils.get_total_norm
        )
        direct = name in ("adam", "adamw") and sharding is None
        self.rule = _Adam(parameters) if direct else _Torch(name, parameters)

    @torch.no_grad()
    def clipped(self, grads: Sequence[Tensor], norm: Tensor | None = None) -> Sequence[Tensor]:
        """Gradients scaled down to the limit, in place."""
        if not self.clip:
            return grads
        norm = self.norm(list(grads)) if norm is None else norm
        scale = (self.clip / (norm.reshape(()) + 1e-6)).clamp(max=1.0)
        if bool(scale != 1):  # a pass over all gradients
            torch._foreach_mul_(list(grads), scale.to(grads[0].device))
        return grads

    def step(self, grads: Sequence[Tensor], scale: float, alive: Tensor | None) -> None:
        self.rule.step(grads, self.lr * scale)


class _Adam:
    """The fused kernel of torch.optim.Adam, called on the same tensors at every step: the class around it
    groups them anew each time, counts every tensor's steps, and takes a third of the time of a small model.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.count = torch.zeros((), device=parameters[0].device)

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], lr: float) -> None:
        self.count += 1
        torch._fused_adam_(
            self.parameters,
            list(grads),
            self.first,
            self.second,
            [],
            [self.count] * len(self.parameters),
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class _Torch:
    """An optimizer of torch.optim."""

    def __init__(self, name: Optimizer, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        make = {
            "sgd": torch.optim.SGD,
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "rmsprop": torch.optim.RMSprop,
        }
        fused = {} if name == "rmsprop" else {"fused": True}  # one pass over the parameters
        self.optimizer: torch.optim.Optimizer = make[name](parameters, weight_decay=0.0, **fused)

    def step(self, grads: Sequence[Tensor], lr: float) -> None:
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
