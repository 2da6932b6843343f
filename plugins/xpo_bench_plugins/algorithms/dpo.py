"""Direct preference optimization: logistic loss on the difference of the pair's log-ratios.

    loss = −log σ(β Δ),   Δ = lr_w − lr_l,   lr = log π(y|x) − log π_ref(y|x), summed over tokens

Args:
    beta: strength β of the KL term of the objective max E r − β·KL(π‖π_ref) that the loss stands for, 1/nats.

Pitfalls: on a preference that is never contradicted the loss has no finite minimiser at any β, so the
margin grows for as long as training lasts; log-probabilities are summed, never averaged.

Source: Rafailov et al. 2023, eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DPO(Algorithm):
    name: ClassVar[str] = "dpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Rafailov et al. 2023, eq. 7"
    paper: ClassVar[str] = "arXiv:2305.18290"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))  # eq. 7

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()  # eq. 6

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [DPO]
