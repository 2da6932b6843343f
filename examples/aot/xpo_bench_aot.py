"""AOT: chosen log-ratios dominate the rejected ones in distribution, quantile by quantile.

    loss = −log σ(β(u₍ᵢ₎ − v₍ᵢ₎)),   u₍₁₎ ≤ u₍₂₎ ≤ ... and v₍₁₎ ≤ v₍₂₎ ≤ ... sorted over the batch

`pairing="unpaired"`: u and v are the log-ratios of the chosen and of the rejected completions.
`pairing="paired"`: u is the margin log π(chosen) − log π(rejected) under the policy, and v the same under the
reference.

Pitfalls: sorting makes every value depend on the whole batch. Several processes that share a batch cannot
sort it, which the runner says when it is asked to. At a batch size of 1 both forms are DPO.

Source: Melnyk et al. 2024, Distributional Preference Alignment of LLMs via Optimal Transport.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl


@dataclass(frozen=True)
class AOT(Algorithm):
    """Stochastic dominance of the chosen over the rejected log-ratios, by sorting them over the batch."""

    name: ClassVar[str] = "aot"
    batch_coupled: ClassVar[bool] = True
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Melnyk et al. 2024"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1
    pairing: Annotated[
        Literal["unpaired", "paired"], Doc("what is sorted: log-ratios, or margins against the reference's")
    ] = "unpaired"

    def loss(self, step: Step) -> Tensor:
        if self.pairing == "unpaired":
            u, v = step.log_ratio("chosen"), step.log_ratio("rejected")
        else:
            u = step.policy["chosen"].sum - step.policy["rejected"].sum
            v = step.reference["chosen"].sum - step.reference["rejected"].sum
        rank, sorted_v = _order(u, step.weight), v.gather(-1, _order(v, step.weight))
        values = -logsigmoid(self.beta * (u.gather(-1, rank) - sorted_v))
        return torch.zeros_like(values).scatter(-1, rank, values)  # each value to the row of its u


def _order(values: Tensor, weight: Tensor | None) -> Tensor:
    """Indices that sort the last axis, rows of weight 0 behind all others."""
    present = (
        torch.ones_like(values, dtype=torch.bool) if weight is None else (weight > 0).expand(values.shape)
    )
    return values.masked_fill(~present, torch.inf).argsort(dim=-1, stable=True)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [AOT]
