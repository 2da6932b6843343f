"""Optimizers with one learning rate per run follow torch.optim's rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from xpo_bench.train.optim import ModuleOptimizer, StackedOptimizer

RULES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0),
    "rmsprop": torch.optim.RMSprop,
}
LR = (0.3, 0.01, 1e-4)


def gradients(steps: int, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    # sizes from 1e-12 to 1e3, so that eps and the order of operations matter
    scale = torch.logspace(-12, 3, shape[-1], dtype=torch.float64)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) * scale for _ in range(steps)]


@pytest.mark.parametrize("name", RULES)
def test_equal_to_torch_at_every_step_and_learning_rate(name: str) -> None:
    start = torch.randn(len(LR), 2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    stacked = start.clone()
    optimizer = StackedOptimizer(name, [stacked], torch.tensor(LR, dtype=torch.float64))  # type: ignore[arg-type]
    ours = [row.clone() for row in start]
    theirs = [RULES[name]([row], lr=lr) for row, lr in zip(ours, LR, strict=True)]
    for step, grad in enumerate(gradients(60, tuple(start.shape))):
        scale = min(1.0, (step + 1) / 10)
        optimizer.step([grad], scale, None)
        for r, (row, other) in enumerate(zip(ours, theirs, strict=True)):
            row.grad = grad[r]
            other.param_groups[0]["lr"] = LR[r] * scale
            other.step()
        torch.testing.assert_close(stacked, torch.stack(ours), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", RULES)
def test_a_run_among_others_is_the_run_alone(name: str) -> None:
    start = torch.zeros(3, 4, dtype=torch.float64)
    together = start.clone()
    shared = StackedOptimizer(name, [together], torch.tensor(LR, dtype=torch.float64))  # type: ignore[arg-type]
    alone = start[1:2].clone()
    single = StackedOptimizer(name, [alone], torch.tensor(LR[1:2], dtype=torch.float64))  # type: ignore[arg-type]
    for grad in gradients(20, (3, 4)):
        shared.step([grad], 1.0, None)
        single.step([grad[1:2]], 1.0, None)
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("name", RULES)
def test_frozen_runs_stand_still_whatever_their_gradient_is(name: str) -> None:
    parameter = torch.ones(3, 4, dtype=torch.float64)
    free = parameter.clone()
    optimizer = StackedOptimizer(name, [parameter], torch.full((3,), 0.1, dtype=torch.float64))  # type: ignore[arg-type]
    other = StackedOptimizer(name, [free], torch.full((3,), 0.1, dtype=torch.float64))  # type: ignore[arg-type]
    alive = torch.tensor([True, False, True])
    for grad in gradients(5, (3, 4)):
        other.step([grad], 1.0, None)
        spoilt = grad.clone()
        spoilt[1] = float("nan")
        optimizer.step([spoilt], 1.0, alive)
    assert torch.equal(parameter[1], torch.ones(4, dtype=torch.float64))
    assert torch.equal(parameter[alive], free[alive])


@pytest.mark.parametrize("name", RULES)
def test_a_network_is_updated_by_torch_itself(name: str) -> None:
    a, b = (torch.ones(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, theirs = ModuleOptimizer(name, [a], 0.1, clip=0.5), RULES[name]([b], lr=0.1)  # type: ignore[arg-type]
    for grad in gradients(5, (3, 2)):
        ours.step(ours.clipped([grad.clone()]), 0.5, None)
        b.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_([b], 0.5)
        theirs.param_groups[0]["lr"] = 0.05
        theirs.step()
        assert torch.equal(a, b)
        assert a.grad is None
