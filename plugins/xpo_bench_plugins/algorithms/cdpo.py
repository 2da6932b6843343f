"""Conservative DPO: cross-entropy against labels that are wrong with probability ε.

    loss = −(1−ε) log σ(β Δ) − ε log σ(−β Δ),   Δ = lr_w − lr_l

Args:
    beta: scale β of the log-ratios, as in DPO, 1/nats.
    label_smoothing: assumed probability ε that a label is flipped.

Pitfalls: the gradient vanishes at β Δ = logit(1−ε), so margins stay finite, but on labels that really are
flipped with probability ε the estimate is shrunk: unlike robust DPO this does not undo the noise. Where
labels are right with probability p it ends at σ(β Δ) = (1−2ε) p + ε, nearer to the reference than π ∝ π_ref
exp(r/β), on labels with noise or without: β is no KL strength, and no `regret` is reported.

Source: Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
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
class CDPO(Algorithm):
    name: ClassVar[str] = "cdpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Mitchell 2023, note on DPO with noisy preferences"
    paper: ClassVar[str] = "https://ericmitchell.ai/cdpo.pdf"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1
    label_smoothing: Annotated[float, Ge(0), Lt(0.5), Doc("assumed probability that a label is flipped")] = (
        0.1
    )

    def loss(self, step: Step) -> Tensor:
        logit, eps = self._logit(step), self.label_smoothing
        # cross-entropy with target 1 − ε, so that the minimum is finite: βΔ = logit(1 − ε)
        return -(1 - eps) * logsigmoid(logit) - eps * logsigmoid(-logit)

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [CDPO]
