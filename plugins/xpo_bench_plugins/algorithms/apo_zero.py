"""APO-zero: anchored preference optimization that raises the chosen and lowers the rejected completion.

    loss = (1 − σ(β lr_w)) + σ(β lr_l),   lr = log π(y|x) − log π_ref(y|x)

Args:
    beta: scale β of the log-ratios, 1/nats.

Pitfalls: each completion is anchored at its own log-ratio 0, not at the other one's: the loss is that of KTO
with z0 = 0 and unit weights on the two halves of the pair, and its gradient on each log-ratio is at most β/4,
vanishing on both sides of the anchor. A completion that the policy has already moved far, even in the wrong
direction, is thus left alone. No probability that chosen is preferred is claimed.

Source: D'Oosterlinck et al. 2024, the loss APO-zero.
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
class APOZero(Algorithm):
    name: ClassVar[str] = "apo_zero"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    # DPO's: the paper keeps β at .1
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "D'Oosterlinck et al. 2024"
    paper: ClassVar[str] = "arXiv:2408.06266"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        # 1 − σ(x) = σ(−x); exp(logsigmoid) because sigmoid() rounds by place in the tensor
        chosen = logsigmoid(-self.beta * step.log_ratio("chosen")).exp()
        return chosen + logsigmoid(self.beta * step.log_ratio("rejected")).exp()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [APOZero]
