"""SLiC-HF: hinge loss on the log-probability margin, plus supervised loss on the chosen, no reference.

    loss = max(0, δ − logp_w + logp_l) + λ · NLL(chosen),   NLL = −logp_w / length_w

Args:
    margin: margin δ of the summed log-probabilities, nats.
    nll_weight: weight λ of the supervised term, dimensionless.

Pitfalls: the margin is in nats of the whole completion, not per token; the supervised term, which keeps the
policy near where it started, is here on the chosen completion of the pair.

Source: Zhao et al. 2023, the calibration loss with regularisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SLiC(Algorithm):
    name: ClassVar[str] = "slic"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    regulariser: ClassVar[tuple[str, int] | None] = ("nll_weight", +1)
    source: ClassVar[str] = "Zhao et al. 2023"
    paper: ClassVar[str] = "arXiv:2305.10425"

    margin: Annotated[float, Ge(0), Doc("margin of the summed log-probabilities, nats")] = 1.0
    nll_weight: Annotated[
        float, Ge(0), Doc("weight of the supervised loss on the chosen completion, dimensionless")
    ] = 0.1

    def loss(self, step: Step) -> Tensor:
        chosen, rejected = step.policy["chosen"], step.policy["rejected"]
        # no reference: the margin is one of log-probabilities, and the NLL per token regularises
        return (self.margin - chosen.sum + rejected.sum).relu() - self.nll_weight * chosen.mean


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SLiC]
