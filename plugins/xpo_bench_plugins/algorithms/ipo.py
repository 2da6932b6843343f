"""Identity preference optimization: squared distance of the pair's log-ratio difference from 1/(2τ).

    loss = (Δ − 1/(2τ))²,   Δ = lr_w − lr_l

Args:
    tau: strength τ of the regularisation towards the reference, 1/nats.
    normalize: `"tokens"` takes each log-ratio per token, `"none"` the sums. At common length T the
        two agree up to a factor: tokens(τ) = none(τ/T) / T².

Pitfalls: with sums the target 1/(2τ) means something else at every length; the length must come from the
mask, since counting tokens with a non-zero log-ratio gives 0/0 at policy = reference; plain gradient
descent on a tabular policy oscillates from learning rate 1/4 and diverges above 1/2, whatever τ is.

Source: Azar et al. 2023, eq. 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IPO(Algorithm):
    name: ClassVar[str] = "ipo"
    regulariser: ClassVar[tuple[str, int] | None] = ("tau", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"tau": (0.01, 1.0)}
    source: ClassVar[str] = "Azar et al. 2023, eq. 17"
    paper: ClassVar[str] = "arXiv:2310.12036"

    tau: Annotated[float, Gt(0), Doc("regularisation towards the reference, 1/nats")] = 0.1
    normalize: Annotated[Literal["tokens", "none"], Doc("log-ratios per token, or summed over tokens")] = (
        "tokens"
    )

    def loss(self, step: Step) -> Tensor:
        return (self._delta(step) - 1 / (2 * self.tau)) ** 2  # eq. 17

    def implied_preference(self, step: Step) -> Tensor:
        # at the minimiser of the population loss Δ = (p − ½)/τ
        return (0.5 + self.tau * self._delta(step)).clamp(0.0, 1.0)

    def _delta(self, step: Step) -> Tensor:
        log_ratio = step.mean_log_ratio if self.normalize == "tokens" else step.log_ratio
        return log_ratio("chosen") - log_ratio("rejected")


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [IPO]
