"""The trained parameters of a model, or this process's shares of them: snapshots and gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xpo_bench.policy.language.sharding import Sharding

if TYPE_CHECKING:
    from transformers import PreTrainedModel

State = dict[str, Tensor]
"""Trained parameters by name."""


class Weights:
    """What training changes in a model, in the memory of the model itself.

    Attributes:
        named: the trained parameters, or this process's shares of them. Frozen ones are the same in every
            snapshot, and in none of them.
        size: numbers in all parameters of the model. trained: numbers in those that are trained.
    """

    def __init__(self, model: PreTrainedModel, sharding: Sharding | None = None) -> None:
        everything: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        trained = {name: p for name, p in everything.items() if p.requires_grad}
        self.sharding = sharding
        self.named: State = {name: sharding.own(p) if sharding else p for name, p in trained.items()}
        self.size = sum(p.numel() for p in everything.values())
        self.trained = sum(p.numel() for p in trained.values())
        shares = [sharding.own(p) if sharding else p for p in everything.values()]
        self._bytes: int = sum(t.numel() * t.element_size() for t in (*shares, *model.buffers()))

    def held_bytes(self) -> int:
        """Bytes of the model's tensors that this process keeps, frozen ones included."""
        return self._bytes

    @property
    def held(self) -> int:
        """Trained numbers that this process keeps."""
        return sum(p.numel() for p in self.named.values())

    def zero(self) -> Tensor:
        """A zero that is part of the graph, shape (1,): its gradient exists, and is 0."""
        return next(iter(self.named.values())).reshape(-1)[:1] * 0

    def snapshot(self) -> State:
        """A copy of the trained parameters."""
        return {name: p.detach().clone() for name, p in self.named.items()}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Set the parameters to a snapshot, in place."""
        for name, p in self.named.items():
            p.copy_(state[name])

    @contextlib.contextmanager
    def using(self, state: State) -> Iterator[None]:
        """Compute with a snapshot's parameters for a while. Not to be combined with a graph.

        A whole parameter is made to point at the snapshot's memory, which costs nothing. A share lies inside
        a tensor that FSDP owns and cannot point elsewhere, so it is copied there and back.
        """
        whole: State = {name: p for name, p in self.named.items() if isinstance(p, torch.nn.Parameter)}
        shares = {name: p for name, p in self.named.items() if name not in whole}
        own = {name: p.data for name, p in whole.items()} | {name: p.clone() for name, p in shares.items()}
        try:
            for name, p in whole.items():  # the parameter stays the same object: tied weights stay tied
                p.data = state[name].to(p.device, p.dtype)
            for name, p in shares.items():
                p.copy_(state[name])
            yield
        finally:
            for name, p in whole.items():
                p.data = own[name]
            for name, p in shares.items():
                p.copy_(own[name])

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of a loss, zero where it does not reach; of the losses of all processes where they share
        layers.
        """
        if self.sharding:
            return self.sharding.gradients(loss)
        return list(torch.autograd.grad(loss, list(self.named.values()), materialize_grads=True))
