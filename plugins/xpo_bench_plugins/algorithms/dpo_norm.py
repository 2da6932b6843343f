"""Length-normalised DPO: logistic loss on the difference of the pair's log-ratios per token.

    loss = −log σ(β (lr_w / |w| − lr_l / |l|)),   lr = log π(y|x) − log π_ref(y|x), summed over tokens

Args:
    beta: scale β of the log-ratios per token, 1/nats.

Pitfalls: β stands before means, so that the published values are 2 to 15 where DPO has .1 before sums. At
common length T the loss is DPO's at β/T; where lengths differ, the optimum is not that of max E r − β·KL:
log π/π_ref of a completion of n tokens is n times what its reward says, so that long good completions gain
more than short ones, and long bad ones lose more. Hence no KL strength and no `regret`.

Source: Lambert et al. 2024 (Tülu 3), the length-normalised DPO loss.
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
class DPONorm(Algorithm):
    name: ClassVar[str] = "dpo_norm"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (2.0, 15.0)}
    source: ClassVar[str] = "Lambert et al. 2024"
    paper: ClassVar[str] = "arXiv:2411.15124"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios per token, 1/nats")] = 5.0

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.mean_log_ratio("chosen") - step.mean_log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [DPONorm]
