"""DPO-Positive (Smaug): DPO with a penalty for pushing the chosen completion below the reference.

    loss = −log σ(β (Δ − λ max(0, −lr_w))),   Δ = lr_w − lr_l

Args:
    beta: scale β of the log-ratios, 1/nats.
    penalty_weight: weight λ of the penalty, dimensionless.

Pitfalls: the penalty sits INSIDE the log-sigmoid and is scaled by β; outside it would not fade with the
margin. The gradient at policy = reference is that of a kink, so it depends on how max(0, ·) is coded.

Source: Pal et al. 2024, the definition of L_DPOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DPOP(Algorithm):
    name: ClassVar[str] = "dpop"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.1, 1.0),
        "penalty_weight": (5.0, 500.0),
    }
    source: ClassVar[str] = "Pal et al. 2024"
    paper: ClassVar[str] = "arXiv:2402.13228"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.3
    penalty_weight: Annotated[
        float, Ge(0), Doc("weight of the penalty on a falling chosen completion, dimensionless")
    ] = 50.0

    def loss(self, step: Step) -> Tensor:
        chosen = step.log_ratio("chosen")
        delta = chosen - step.log_ratio("rejected")
        # inside of the sigmoid the penalty λ·max(0, −lr_w) vanishes when the margin is large
        return -logsigmoid(self.beta * (delta - self.penalty_weight * (-chosen).relu()))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [DPOP]
