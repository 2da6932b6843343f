"""Noise contrastive alignment: each completion is classified on its own, as from the data or from the noise.

    loss = −log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l),   r = β lr

The chosen completion is the sample of the data; both completions of the pair, at half weight each, are the
noise. This is the form for preference pairs, the limit of certain labels of the form with rewards.

Args:
    beta: scale β of the log-ratios, 1/nats.

Pitfalls: rewards are absolute, not differences, so the loss is no function of Δ: a constant added to both
log-ratios changes it, and a chosen completion that falls is pulled back, since its own terms have their
minimum at r_w = ln 2. Where pairs are drawn from the reference and β = 1 the optimum is 2 π_ref P(y ≻ π_ref),
at most twice the reference, whatever the labels.

Source: Chen et al. 2024, NCA for preference data.
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
class NCA(Algorithm):
    name: ClassVar[str] = "nca"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Chen et al. 2024"
    paper: ClassVar[str] = "arXiv:2402.05369"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        chosen = self.beta * step.log_ratio("chosen")
        rejected = self.beta * step.log_ratio("rejected")
        return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [NCA]
