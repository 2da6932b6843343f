"""RPO: DPO plus the negative log-likelihood of the chosen completion.

    loss = −log σ(β Δ) + α · NLL(chosen),   Δ = lr_w − lr_l
    NLL(chosen) = −logp_w / |w|  (`"mean"`)   or   −logp_w  (`"sum"`)

Args:
    beta: scale β of the log-ratios, 1/nats.
    nll_weight: weight α of the likelihood; dimensionless for the mean, 1/nats for the sum.
    nll: `"mean"` per token of each completion (Pang et al.), or the `"sum"` over its tokens (Liu et al.).

Pitfalls: the mean is taken per sequence and then over examples; pooled over the tokens of a batch, long
completions dominate. The sum is larger by the length: the weight of one form means nothing in the other (Liu
et al. use α = .005 β). At α > 0 the optimum also imitates the chosen completions, and is not π ∝ π_ref
exp(r/β): no KL strength is declared. Two other losses have the same name: relative preference optimization
and reward-aware preference optimization.

Source: Pang et al. 2024 (iterative reasoning preference optimization), the DPO+NLL loss; Liu et al. 2024,
arXiv:2405.16436 (regularized preference optimization, which gives the name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RPO(Algorithm):
    name: ClassVar[str] = "rpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.05, 1.0),
        "nll_weight": (0.25, 2.0),
    }
    source: ClassVar[str] = "Pang et al. 2024; Liu et al. 2024"
    paper: ClassVar[str] = "arXiv:2404.19733"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1
    nll_weight: Annotated[
        float, Ge(0), Doc("weight of the chosen completion's NLL, dimensionless; for the sum 1/nats")
    ] = 1.0
    nll: Annotated[Literal["mean", "sum"], Doc("NLL per token, or summed over tokens")] = "mean"

    def loss(self, step: Step) -> Tensor:
        chosen = step.policy["chosen"]
        likelihood = chosen.mean if self.nll == "mean" else chosen.sum
        return -logsigmoid(self._logit(step)) - self.nll_weight * likelihood

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RPO]
