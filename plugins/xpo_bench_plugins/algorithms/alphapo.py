"""AlphaPO: SimPO with another shape of the reward, a power of the likelihood per token in place of its log.

    loss = −log σ(β (s_w − s_l) − γ),   s = (1 − p^(−α))/α,   p = exp(logp / length)

At α = 0 the shape is s = log p, and the loss that of SimPO.

Args:
    beta: scale β of the reward, dimensionless.
    gamma: target margin γ on the scaled difference, dimensionless.
    alpha: shape α of the reward, dimensionless, of either sign; 0 is the logarithm.

Pitfalls: p is the likelihood per token (the geometric mean); p of the whole completion underflows, and its
power is infinite. s is computed from log p. For α > 0 rewards of unlikely completions are far below those of
the logarithm, so β is no longer the β of SimPO, and the margin of one pair can hide all others. Where
−α log p exceeds 40 the reward continues as a straight line, which float32 can hold; no reference is loaded
or run.

Source: Gupta et al. 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Step, hookimpl, logsigmoid
from xpo_bench_plugins.numerics import bounded_expm1

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AlphaPO(Algorithm):
    name: ClassVar[str] = "alphapo"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    # SimPO's, of which this is a generalisation
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (2.0, 10.0), "gamma": (0.0, 10.0)}
    source: ClassVar[str] = "Gupta et al. 2025"
    paper: ClassVar[str] = "arXiv:2501.03884"

    beta: Annotated[float, Gt(0), Doc("scale of the reward difference, dimensionless")] = 2.0
    gamma: Annotated[float, Ge(0), Doc("target margin on the scaled difference, dimensionless")] = 1.0
    alpha: Annotated[float, Doc("shape of the reward, dimensionless; 0 is the logarithm")] = 0.25

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step) - self.gamma)

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (
            self._shape(step.policy["chosen"].mean) - self._shape(step.policy["rejected"].mean)
        )

    def _shape(self, average: Tensor) -> Tensor:
        """(1 − exp(−α·avg))/α, and its limit avg at α = 0; shape `(..., N)`."""
        import torch

        alpha = torch.as_tensor(self.alpha, dtype=average.dtype, device=average.device)
        straight = alpha == 0
        # where() would let 0/0 into the gradient: the branch that is not taken has to be finite, too
        alpha = torch.where(straight, 1.0, alpha)
        return torch.where(straight, average, -bounded_expm1(-alpha * average) / alpha)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [AlphaPO]
