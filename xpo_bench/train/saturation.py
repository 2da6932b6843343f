"""Whether the gradients of a run have vanished where no minimum is near.

At rest a gradient is small because the loss has a minimum there: a step away from it, the gradient is large.
On the tail of a sigmoid it is small everywhere: σ(−βΔ) with βΔ = 40 is below the rounding of any update, and
is so 1 % nearer to the start, too. A run that stands still for that reason has not converged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xpo_bench.policy.base import Snapshot
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.update import Update

VANISHED = 1e-3
"""Norm of a gradient that has vanished, as a fraction of the largest at the start of a stage."""
BACK = 0.01
"""Part of the way back to the start at which the gradient is looked at again."""
DOUBLED = 2.0
"""Near a minimum the gradient at `BACK` is many times as large; on a tail e^(.01·βΔ), less than twice."""
ROUNDING = 1e-6
"""A gradient that is smaller even there, as a fraction, is flat whatever its growth: e^(.01·βΔ) with βΔ = 300
is a growth from nothing to nothing.
"""


class Saturation:
    """Follows the norms of the gradients of every run, and judges them at the end.

    Args:
        steps: the budget.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.largest: Tensor | None = None
        self.late: list[Tensor] = []

    def note(self, done: int, norm: Tensor, begins: bool) -> None:
        """Take note of the norms of a step, shape (runs,).

        Args:
            done: steps made before it. begins: it is the first one of a stage.
        """
        if begins:
            self.largest = norm if self.largest is None else torch.maximum(self.largest, norm)
        if done >= 0.8 * self.steps:
            self.late.append(norm)

    def judge(self, update: Update, t: int, initial: Snapshot) -> Tensor | None:
        """Which runs are saturated, shape (runs,); None where memory is too short to see.

        The policy is as before. With several processes all of them call it, and find the same.

        Args:
            t: the step of the stage that was made last. initial: the parameters that the run began with.
        """
        if self.largest is None or not self.late:
            return None
        last = self.late[-1]
        vanished = torch.stack(self.late).amax(0) < VANISHED * self.largest
        if not bool(vanished.any()):
            return vanished
        back = _norm_towards(update, t, initial)
        if back is None:
            return None
        return vanished & ((back < DOUBLED * last) | (back < ROUNDING * self.largest))


def _norm_towards(update: Update, t: int, initial: Snapshot) -> Tensor | None:
    """Norms of the gradients at `BACK` of the way back to the initial policy; None without the memory."""
    parameters = update.policy.parameters()
    kept: list[Tensor] = []
    try:
        kept += [p.detach().clone() for p in parameters]
        update.policy.restore(initial)
        _mix(parameters, kept)
        return update.norms_now(t)
    except Exception as error:
        # of several processes none may leave the others waiting for its part of a sum
        if not is_out_of_memory(error) or not update.processes.alone:
            raise
        return None
    finally:
        with torch.no_grad():
            for p, own in zip(parameters, kept, strict=bool(kept)):
                p.copy_(own)


@torch.no_grad()
def _mix(initial: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Turn the initial parameters, in place, into what lies `BACK` of the way from `kept` to them."""
    for p, own in zip(initial, kept, strict=True):
        p.mul_(BACK).add_(own, alpha=1 - BACK)
