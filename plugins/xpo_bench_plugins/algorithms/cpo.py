"""Contrastive preference optimization: DPO with a uniform reference, plus supervised loss on the chosen.

    loss = −log σ(β (logp_w − logp_l)) + α · NLL(chosen),   NLL = −logp_w / length_w

Args:
    beta: scale β of the log-probability margin, 1/nats.
    nll_weight: weight α of the supervised term, dimensionless.

Pitfalls: the margin uses sums and the supervised term a per-token mean; no reference is loaded or run.

Source: Xu et al. 2024, the preference term with a uniform reference and the behaviour-cloning term.
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
class CPO(Algorithm):
    name: ClassVar[str] = "cpo"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.1),
        "nll_weight": (1.0, 1.0),
    }
    source: ClassVar[str] = "Xu et al. 2024"
    paper: ClassVar[str] = "arXiv:2401.08417"

    beta: Annotated[float, Gt(0), Doc("scale of the log-probability margin, 1/nats")] = 0.1
    nll_weight: Annotated[
        float, Ge(0), Doc("weight of the supervised loss on the chosen completion, dimensionless")
    ] = 1.0

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step)) - self.nll_weight * step.policy["chosen"].mean

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.policy["chosen"].sum - step.policy["rejected"].sum)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [CPO]
