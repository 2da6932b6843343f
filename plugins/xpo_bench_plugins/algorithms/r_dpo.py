"""R-DPO: DPO with a penalty on the length of a completion in the reward.

    loss = −log σ(β Δ + α (|w| − |l|)),   Δ = lr_w − lr_l

Args:
    beta: KL strength β of the objective max E[r − α |y|] − β·KL(π‖π_ref), 1/nats.
    length_penalty: price α of a token in units of reward, 1/tokens.

Pitfalls: the sign. The reward that the policy implies is r = β lr + α |y|: what length explains of a
preference need not be explained by the policy, so a longer winner gets the SMALLER gradient, and the term is
+α (|w| − |l|) inside the sigmoid; with a minus it is a margin that grows with the winner's length and teaches
verbosity. The optimum is π ∝ π_ref exp((r − α |y|)/β), that of the penalised reward: β is no KL strength of r
itself, and no `regret` is reported. At equal lengths, or α = 0, the loss is DPO's.

Source: Park et al. 2024 (Disentangling length from quality), the regularised DPO loss.
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
class RDPO(Algorithm):
    name: ClassVar[str] = "r_dpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5),  # DPO's: the same constant
        "length_penalty": (0.005, 0.5),
    }
    source: ClassVar[str] = "Park et al. 2024"
    paper: ClassVar[str] = "arXiv:2403.19159"

    beta: Annotated[float, Gt(0), Doc("KL strength under the penalised reward, 1/nats")] = 0.1
    length_penalty: Annotated[float, Ge(0), Doc("price of a token in units of reward, 1/tokens")] = 0.01

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        longer = step.policy["chosen"].length - step.policy["rejected"].length
        delta = step.log_ratio("chosen") - step.log_ratio("rejected")
        return self.beta * delta + self.length_penalty * longer


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RDPO]
