"""Kahneman–Tversky optimization: unpaired labels, judged against the policy's drift from the reference.

    desirable:    loss = λ_D (1 − σ(β (lr − z0)))
    undesirable:  loss = λ_U (1 − σ(β (z0 − lr)))
    z0 = max(0, estimate of KL(π‖π_ref)), without gradient

On enumerable worlds z0 is the batch mean of the exact KL; on text it is the mean log-ratio of completions
paired with the prompt of another example.

Args:
    beta: scale β of the log-ratio, 1/nats.
    desirable_weight, undesirable_weight: λ_D and λ_U, dimensionless.

Pitfalls: z0 must carry no gradient and must not come from matched rows, nor from the other half of the same
pair; z0 depends on the whole micro-batch, of all processes, so micro-batch size changes the loss. At policy =
reference the gradient is β/4 of a log-ratio's, hence learning rates 2 to 10 times those of DPO.

Source: Ethayarajh et al. 2024, eq. 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Single, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KTO(Algorithm):
    name: ClassVar[str] = "kto"
    accepts: ClassVar[type] = Single
    groups: ClassVar[Mapping[str, Group]] = {
        "completion": Group(reference=True),
        "mismatched": Group(reference=True, grad=False, mismatched=True),
    }
    batch_coupled: ClassVar[bool] = True
    spec: ClassVar[int] = 4  # rows of any weight count by it in z0
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Ethayarajh et al. 2024, eq. 8"
    paper: ClassVar[str] = "arXiv:2402.01306"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratio, 1/nats")] = 0.1
    desirable_weight: Annotated[float, Ge(0), Doc("weight of desirable examples, dimensionless")] = 1.0
    undesirable_weight: Annotated[float, Ge(0), Doc("weight of undesirable examples, dimensionless")] = 1.0

    def loss(self, step: Step) -> Tensor:
        logit = self.beta * (step.log_ratio("completion") - reference_point(step))
        # 1 − σ(x) = σ(−x); exp(logsigmoid) because sigmoid() rounds by place in the tensor
        good = self.desirable_weight * logsigmoid(-logit).exp()
        bad = self.undesirable_weight * logsigmoid(logit).exp()
        return good.where(step.columns["desirable"] > 0.5, bad)


def reference_point(step: Step) -> Tensor:
    """KTO's z0 in nats, shape `(..., 1)`, without gradient: the batch mean of the KL estimate, at least 0.

    The mean is over the rows of all processes that share the batch.
    Rows without weight and rows that found no partner (an empty mismatched completion) do not count;
    where no row counts, z0 is 0.
    """
    import torch

    # z0 = max(0, E[log π(y'|x)/π_ref(y'|x)]) over mismatched y'; an enumerable policy gives the KL itself
    if step.exact_kl is not None:
        kl = step.exact_kl
        weight = torch.ones_like(kl)
    else:
        kl = step.log_ratio("mismatched")
        weight = (step.policy["mismatched"].length > 0).to(kl.dtype)
    if step.weight is not None:
        weight = weight * step.weight
    # where() keeps whatever stands on absent rows, inf included, out of the sum
    total = step.all_reduce(torch.where(weight > 0, weight * kl, 0.0).sum(-1, keepdim=True))
    count = step.all_reduce(weight.sum(-1, keepdim=True))
    return torch.where(count > 0, total / count, 0.0).clamp(min=0.0).detach()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [KTO]
