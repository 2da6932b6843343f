"""LD-DPO: DPO in which the tokens beyond the shorter completion's length count less.

    loss = −log σ(β Δ),   Δ = lr_w − lr_l,   lr = Σ_{t ≤ m} lr_t + α Σ_{t > m} lr_t,   m = min(|w|, |l|)

with lr_t the log-ratio of token t.

Args:
    beta: scale β of the log-ratios, 1/nats.
    tail_weight: weight α of the tokens beyond the common length, dimensionless; 1 is DPO, 0 ignores them.

Pitfalls: the weights are the same for policy and reference, or log-ratios are not 0 at policy = reference;
only one side of a pair has a tail, and where lengths are equal the loss is DPO's. At α < 1 a completion has
another reward in every pair, by its partner's length, so that no single policy is the optimum of max E r −
β·KL: no KL strength is declared. Where the log-probability of a completion is spread evenly over its tokens,
as on a tabular policy, this scales the longer side's log-ratio.

Source: Liu et al. 2024 (Length desensitization in DPO), the modified likelihood and the LD-DPO loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import Algorithm, Scores, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LDDPO(Algorithm):
    name: ClassVar[str] = "ld_dpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5),  # DPO's: the same constant
        "tail_weight": (0.0, 1.0),
    }
    source: ClassVar[str] = "Liu et al. 2024"
    paper: ClassVar[str] = "arXiv:2409.06411"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1
    tail_weight: Annotated[
        float, Interval(ge=0, le=1), Doc("weight of tokens beyond the common length, dimensionless")
    ] = 0.5

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        common = step.policy["chosen"].length.minimum(step.policy["rejected"].length)
        return self.beta * (
            self._log_ratio(step, "chosen", common) - self._log_ratio(step, "rejected", common)
        )

    def _log_ratio(self, step: Step, group: str, common: Tensor) -> Tensor:
        """Log-ratio of a group whose tokens behind the first `common` count α times, shape (..., N)."""
        mask = step.policy[group].mask.bool()
        # the number of a token is counted on the mask, so that padding before or between changes nothing
        head = mask & (mask.cumsum(-1) <= common.unsqueeze(-1))
        return self.tail_weight * step.log_ratio(group) + (1 - self.tail_weight) * (
            _sum(step.policy[group], head) - _sum(step.reference[group], head)
        )


def _sum(scores: Scores, tokens: Tensor) -> Tensor:
    """Summed log-probability of some of the tokens, nats, shape (..., N)."""
    return scores.token_logps.masked_fill(~tokens, 0.0).sum(-1)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [LDDPO]
