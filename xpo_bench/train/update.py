"""What a plugin's loss returns, and what it leaves behind, before anything is computed from it."""

from __future__ import annotations

import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Step


def per_example(algorithm: Algorithm, step: Step, grad: bool) -> Tensor:
    """The algorithm's losses, shape (..., N).

    Args:
        grad: they have to carry a gradient: in company the others' would hide that they do not.

    Raises:
        TypeError, ValueError: what is returned is not that. RuntimeError: torch's settings are not what they
        were, and would be
            those of the algorithms that compute in the same process; they are put back.
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
            f"{algorithm.name}: loss() returned shape {tuple(values.shape)}, expected per-example {tuple(mask.shape[:-1])}"
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
