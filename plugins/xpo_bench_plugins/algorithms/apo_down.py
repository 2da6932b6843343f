"""APO-down: anchored preference optimization that lowers both completions, the rejected one more.

    loss = σ(β lr_w) + (1 − σ(β Δ)),   Δ = lr_w − lr_l

Args:
    beta: scale β of the log-ratios, 1/nats.

Pitfalls: meant for chosen completions that are worse than what the model writes by itself: on others the
first term takes probability from a good answer. At policy = reference the two terms cancel in the chosen
completion's gradient, so that only the rejected one moves at first; the chosen one follows it down as soon as
β Δ is larger than β |lr_w|. Both terms saturate. No probability that chosen is preferred is claimed.

Source: D'Oosterlinck et al. 2024, the loss APO-down.
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
class APODown(Algorithm):
    name: ClassVar[str] = "apo_down"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    # DPO's: the paper keeps β at .1
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "D'Oosterlinck et al. 2024"
    paper: ClassVar[str] = "arXiv:2408.06266"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        chosen, rejected = step.log_ratio("chosen"), step.log_ratio("rejected")
        # 1 − σ(x) = σ(−x); exp(logsigmoid) because sigmoid() rounds by place in the tensor
        return logsigmoid(self.beta * chosen).exp() + logsigmoid(-self.beta * (chosen - rejected)).exp()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [APODown]
