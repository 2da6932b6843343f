"""χPO: DPO with the link of mixed χ² and KL regularisation, which is pessimistic where the reference is rare.

    loss = −log σ(clip(β (φ(z_w) − φ(z_l)), −c, c)),   z = π(y|x) / π_ref(y|x),   φ(z) = z + ln z

Args:
    beta: strength β of the mixed χ² and KL regularisation, 1/nats.
    clip: limit c of the implied difference of rewards, 2·R_max of the paper for rewards from 0 to R_max;
        dimensionless, log-odds.

Pitfalls: the optimum is β φ(π/π_ref) = r − λ, with λ such that π sums to 1: where r is large, π grows
linearly in r/β, not exponentially. β is no KL strength, and no `regret` is reported; near the reference
φ′(1) = 2, so that the loss behaves as DPO's at 2β. Beyond the clip the gradient is 0 on BOTH sides: a pair
that starts further off than c in the wrong order is never mended, and a certain preference stops at c, except
that steps of an optimizer with momentum overshoot. Summed over many tokens z overflows: it is computed from a
log-ratio of at most 20 nats, above which the link is ln z plus a constant; the clip at any usual β is reached
long before.

Source: Huang et al. 2024 (Correcting the mythos of KL-regularization), Algorithm 1.
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
class ChiPO(Algorithm):
    name: ClassVar[str] = "chi_po"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    # the paper's .005 and .05, up to DPO's
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.005, 0.5)}
    source: ClassVar[str] = "Huang et al. 2024, Algorithm 1"
    paper: ClassVar[str] = "arXiv:2407.13399"

    beta: Annotated[float, Gt(0), Doc("strength of the χ² and KL regularisation, 1/nats")] = 0.1
    clip: Annotated[
        float, Gt(0), Doc("limit of the difference of rewards, 2·R_max, dimensionless log-odds")
    ] = 10.0

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        difference = self.beta * (_link(step.log_ratio("chosen")) - _link(step.log_ratio("rejected")))
        # c may be a tensor of one value per run, which clamp() takes as both limits
        return difference.clamp(-self.clip, self.clip)


LARGEST = 20.0
"""Nats of a log-ratio above which z no longer grows: e²⁰ is 5e8, whose square is finite in float32."""


def _link(log_ratio: Tensor) -> Tensor:
    """φ(z) = z + ln z of the log-ratio ln z, finite with its gradient."""
    return log_ratio.clamp(max=LARGEST).exp() + log_ratio


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [ChiPO]
