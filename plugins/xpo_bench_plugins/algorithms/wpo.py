"""WPO: DPO weighted by how likely the current policy is to write both completions.

    loss = −w(y_w) w(y_l) log σ(β Δ),   w(y) = exp(logp(y) / |y|), without gradient,   Δ = lr_w − lr_l

Args:
    beta: KL strength β, as in DPO, 1/nats.

Pitfalls: the weights are those of the CURRENT policy and carry no gradient: with one the loss could fall by
making both completions unlikely. They are the same for a pair and for the pair swapped, so that the optimum
of full-support preferences is DPO's, π ∝ π_ref exp(r/β); what changes is the pace, which slows where neither
completion is the policy's own. This is the paper's weight without alignment, the geometric mean probability
of the tokens, at most 1. The paper's experiments divide each token's probability by Σ_v π(v)² over the
vocabulary (sampled alignment), so that a sample of the policy has weight about 1; scores hold the probability
of the written token alone, and a constant factor of the loss is a learning rate.

Source: Zhou et al. 2024, the weighted loss with length-normalised weights.
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
class WPO(Algorithm):
    name: ClassVar[str] = "wpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    # DPO's: the same constant
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Zhou et al. 2024"
    paper: ClassVar[str] = "arXiv:2406.11827"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        weight = (step.policy["chosen"].mean + step.policy["rejected"].mean).detach().exp()
        return -weight * logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [WPO]
