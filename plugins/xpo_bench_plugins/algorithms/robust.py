"""Robust DPO: an unbiased estimate of the clean DPO loss from labels flipped with probability ε.

    loss = [−(1−ε) log σ(β Δ) + ε log σ(−β Δ)] / (1−2ε),   Δ = lr_w − lr_l,   ε < ½

Args:
    beta: KL strength β as in DPO, 1/nats.
    label_smoothing: probability ε that a label is flipped.

Pitfalls: the second term is ADDED log-likelihood of the flipped label; with the other sign this is cDPO
divided by a constant. The loss is unbounded below, and on an uncontradicted pair the margin grows without
end, in the limit by 2ηβε/(1−2ε) a step of tabular gradient descent with learning rate η. π ∝ π_ref exp(r/β)
is the optimum on labels that really are flipped with probability ε; `regret` on clean labels shows what a
wrong ε costs.

Source: Chowdhury et al. 2024 (rDPO), the de-biased loss; named `robust` because R-DPO is another method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RobustDPO(Algorithm):
    name: ClassVar[str] = "robust"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Chowdhury et al. 2024"
    paper: ClassVar[str] = "arXiv:2403.00409"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    label_smoothing: Annotated[float, Ge(0), Lt(0.5), Doc("probability that a label is flipped")] = 0.1

    def loss(self, step: Step) -> Tensor:
        logit, eps = self._logit(step), self.label_smoothing
        # E over flips of this is −log σ(βΔ) of the clean pair: ((1 − ε)·ℓ(Δ) − ε·ℓ(−Δ))/(1 − 2ε)
        return (-(1 - eps) * logsigmoid(logit) + eps * logsigmoid(-logit)) / (1 - 2 * eps)

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RobustDPO]
