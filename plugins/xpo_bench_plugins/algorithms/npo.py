"""Negative preference optimization: unlearning a forget set, optionally with a supervised retain set.

    forget:  loss = −(2/β) log σ(−β lr)
    retain:  loss = retain_weight · NLL,   NLL = −logp / length

Undesirable examples are the forget set and desirable ones the retain set. Each set is averaged over its own
rows of the step, however many of each there are.

Args:
    beta: inverse temperature β, 1/nats; as β → 0 the forget term minus (2/β) ln 2 becomes gradient ascent.
    retain_weight: weight of the retain term, dimensionless; 0 is plain NPO, 1 is NPO-RT.

Pitfalls: one mean over both sets makes the balance depend on the batch's composition; the length of the
forget completion is not divided out; without a retain term nothing stops the log-probability from falling,
only the rate does: ln t / β instead of linear in t.

Source: Zhang et al. 2024, eq. 3.
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
class NPO(Algorithm):
    name: ClassVar[str] = "npo"
    accepts: ClassVar[type] = Single
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Zhang et al. 2024, eq. 3"
    paper: ClassVar[str] = "arXiv:2404.05868"

    beta: Annotated[float, Gt(0), Doc("inverse temperature, 1/nats")] = 0.1
    retain_weight: Annotated[
        float, Ge(0), Doc("weight of the supervised loss on the retain set, dimensionless")
    ] = 0.0

    def loss(self, step: Step) -> Tensor:
        retain = step.columns["desirable"]
        examples, retained = _counts(step)
        # eq. 3: (2/β)·log(1 + (π/π_ref)^β) = −(2/β)·log σ(−β·lr)
        forget_loss = -2 / self.beta * logsigmoid(-self.beta * step.log_ratio("completion"))
        retain_loss = -self.retain_weight * step.policy["completion"].mean
        # the runner divides by all examples of the step: turn that into a mean over each set
        retain_loss = retain_loss * (examples / retained.clamp(min=1.0))
        forget_loss = forget_loss * (examples / (examples - retained).clamp(min=1.0))
        return retain_loss.where(retain > 0.5, forget_loss)


def _counts(step: Step) -> tuple[Tensor, Tensor]:
    """(examples, retain rows) of the full step, shape `(..., 1)`; of the given rows without totals."""
    import torch

    if "examples" in step.totals and "desirable" in step.totals:
        return step.totals["examples"], step.totals["desirable"]
    retain = step.columns["desirable"]
    weight = torch.ones_like(retain) if step.weight is None else step.weight
    return weight.sum(-1, keepdim=True), (weight * retain).sum(-1, keepdim=True)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [NPO]
