"""SimPO: logistic loss on the difference of per-token log-probabilities, with a target margin, no reference.

    loss = −log σ(β (avg_w − avg_l) − γ),   avg = logp / length

Args:
    beta: scale β of the per-token log-probability difference, 1/nats.
    gamma: target margin γ on β·avg, dimensionless.

Pitfalls: γ is a margin on the SCALED difference, and published settings give it as the ratio γ/β, between
0 and 1, so tuning β alone moves the margin too; no reference is loaded or run.

Source: Meng et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimPO(Algorithm):
    name: ClassVar[str] = "simpo"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    # γ/β is published as 0 to 1; at the largest β that lets γ reach 10
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (2.0, 10.0), "gamma": (0.0, 10.0)}
    source: ClassVar[str] = "Meng et al. 2024"
    paper: ClassVar[str] = "arXiv:2405.14734"

    beta: Annotated[float, Gt(0), Doc("scale of the per-token log-probability difference, 1/nats")] = 2.0
    gamma: Annotated[float, Ge(0), Doc("target margin on the scaled difference, dimensionless")] = 1.0

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step) - self.gamma)

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        # β stands before averages, so values of 2 to 10 are usual where DPO has 0.1 before sums
        return self.beta * (step.policy["chosen"].mean - step.policy["rejected"].mean)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SimPO]
