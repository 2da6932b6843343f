"""What a device refuses, and what it takes: the stand-in has the rules that a GPU has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerator import Accelerator
from torch import Tensor

pytestmark = pytest.mark.device

Work = Callable[[str], object]


def there(device: str, *values: float) -> Tensor:
    return torch.tensor(values, device=device)


class Mixes(torch.autograd.Function):
    """The identity, whose backward pass adds a tensor of the host."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return grads[0] + torch.ones(2)  # type: ignore[no-any-return]


def gradient(device: str) -> Tensor:
    values = there(device, 1.0, 2.0).requires_grad_()
    return torch.autograd.grad(Mixes.apply(values).sum(), [values])[0]  # type: ignore[no-untyped-call]


REFUSED: dict[str, Work] = {
    "a sum": lambda d: there(d, 1, 2) + torch.ones(2),
    "a product in place": lambda d: torch.ones(2).mul_(there(d, 1, 2)),
    "a matrix product": lambda d: there(d, 1, 2) @ torch.ones(2, 3),
    "concatenation": lambda d: torch.cat([there(d, 1), torch.ones(1)]),
    "gather": lambda d: there(d, 1, 2).gather(0, torch.tensor([1])),
    "the host indexed by the device": lambda d: torch.ones(3)[torch.tensor([0, 2], device=d)],
    "numpy": lambda d: there(d, 1, 2).numpy(),
    "a gradient": gradient,
}
TAKEN: dict[str, Work] = {
    "a number of the host": lambda d: (there(d, 1, 2) * torch.tensor(3.0)).tolist() == [3, 6],
    "indices of the host": lambda d: there(d, 1, 2)[torch.tensor([1])].tolist() == [2],
    "a copy": lambda d: torch.ones(2).copy_(there(d, 1, 2)).tolist() == [1, 2],
    "a mask": lambda d: there(d, 1, 2)[there(d, 1, 2) > 1].tolist() == [2],
    "a part that is changed": lambda d: changed(there(d, 1, 2)).tolist() == [1, 5],
}


def changed(values: Tensor) -> Tensor:
    values[1:].add_(3)
    return values


@pytest.mark.parametrize("what", REFUSED)
def test_refused(device: Accelerator, what: str) -> None:
    if device.kind == "cpu":
        pytest.skip("the CPU is the host")
    with pytest.raises((RuntimeError, TypeError)), device.there():
        REFUSED[what](device.name)


@pytest.mark.parametrize("what", TAKEN)
def test_taken(device: Accelerator, what: str) -> None:
    with device.there():
        assert TAKEN[what](device.name)
