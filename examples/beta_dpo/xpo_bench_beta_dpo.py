"""β-DPO: DPO whose β rises with the batch's margins, on the pairs nearest the usual margin.

    loss = −log σ(β_batch Δ) on the kept pairs,   β_batch = [1 + α (mean of M over the kept pairs − M₀)] β
    M = β Δ,   Δ = log-ratio of chosen − log-ratio of rejected,   M₀ ← m M₀ + (1 − m) mean of M over the batch

M₀ is the state that the algorithm carries from step to step. It starts at 0, and holds the present batch
before it is used, as in the authors' code. No gradient goes through M, M₀ or β_batch, which is never below a
hundredth of β.

Pitfalls: the paper draws the kept pairs, a fraction ρ of the batch, with probabilities from a normal density
around M₀. A loss draws nothing, so here they are the ρN pairs nearest M₀, the likeliest choice under that
density, ties included. In the authors' code M is Δ without β, so its `a` is this `alpha` times `beta`.
β_batch depends on the whole micro-batch, and of several processes each keeps the fraction ρ of its own rows.
At the first step all margins are 0: every pair is kept, and β_batch is β.

Source: Wu et al. 2024, β-DPO: Direct Preference Optimization with Dynamic β, arXiv:2407.08639, and
github.com/junkangwu/beta-DPO.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl

LEAST = 0.01
"""β_batch is at least this fraction of β."""


@dataclass(frozen=True)
class BetaDPO(Algorithm):
    """DPO whose β follows the margins of the batch, without the pairs farthest from the usual margin."""

    name: ClassVar[str] = "beta-dpo"
    spec: ClassVar[int] = 2
    batch_coupled: ClassVar[bool] = True
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Wu et al. 2024"

    beta: Annotated[float, Gt(0), Doc("β₀, what β is at the usual margin, 1/nats")] = 0.1
    alpha: Annotated[float, Ge(0), Doc("how strongly β follows the margin, dimensionless")] = 0.6
    momentum: Annotated[
        float, Ge(0), Lt(1), Doc("fraction of the moving average that stays at each step")
    ] = 0.9
    keep: Annotated[
        float, Gt(0), Le(1), Doc("fraction of the batch that is kept, the pairs nearest the usual margin")
    ] = 0.8

    def state(self) -> Mapping[str, float | Tensor]:
        return {"margin": 0.0}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        margin = self.beta * _difference(step)
        mean = _mean(step, margin, _weight(step, margin))
        return {"margin": self.momentum * step.state["margin"] + (1 - self.momentum) * mean}

    def loss(self, step: Step) -> Tensor:
        difference = _difference(step)
        margin = (self.beta * difference).detach()
        weight = _weight(step, margin)
        usual = self.next_state(step)["margin"].detach()
        kept = weight * self._nearest((margin - usual).abs(), weight)
        beta = self.beta * (1 + self.alpha * (_mean(step, margin, kept) - usual)).clamp(min=LEAST)
        share = step.all_reduce(kept.sum(-1, keepdim=True)) / step.all_reduce(
            weight.sum(-1, keepdim=True)
        ).clamp(min=1.0)
        return (
            -logsigmoid(beta * difference) * kept / share.clamp(min=torch.finfo(share.dtype).tiny)
        )  # the mean over the kept

    def implied_preference(self, step: Step) -> Tensor:
        return (self.beta * _difference(step)).sigmoid()

    def _nearest(self, distance: Tensor, weight: Tensor) -> Tensor:
        """1 on the fraction `keep` of the weighted rows with the least distance, with ties of the last."""
        wanted = (self.keep * weight.sum(-1, keepdim=True)).floor().clamp(min=1.0).long()
        ordered = distance.masked_fill(weight == 0, torch.inf).sort(-1).values
        return (distance <= ordered.gather(-1, wanted - 1)).to(distance.dtype)


def _difference(step: Step) -> Tensor:
    return step.log_ratio("chosen") - step.log_ratio("rejected")


def _weight(step: Step, like: Tensor) -> Tensor:
    return torch.ones_like(like) if step.weight is None else step.weight.to(like.dtype).expand(like.shape)


def _mean(step: Step, values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the rows with weight of all processes, shape (..., 1), without gradient; 0 without rows."""
    total = step.all_reduce(torch.where(weight > 0, weight * values, 0.0).sum(-1, keepdim=True))
    return total / step.all_reduce(weight.sum(-1, keepdim=True)).clamp(min=1.0)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [BetaDPO]
