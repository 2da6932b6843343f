"""DPO with ties by Rao and Kupper's model: who is not better by more than log θ ties.

    P(w ≻ l) = σ(x − log θ),   P(tie) = (θ² − 1) σ(x − log θ) σ(−x − log θ),   x = β (lr_w − lr_l)
    loss = −log P(w ≻ l), and −log P(tie) on a tie;   lr = log π(y|x) − log π_ref(y|x), summed over tokens

Args:
    beta: strength β of the KL term that the implied reward β·lr belongs to, 1/nats.
    theta: threshold parameter θ above 1, dimensionless; two equal sides tie with probability (θ − 1)/(θ + 1).
    fit_theta: estimate θ beside the policy, by maximum likelihood from `theta` on: log(θ − 1) follows the
        gradient of the mean log-likelihood of the rows of every step. Records have the estimate as
        `notes.state.log_excess`, which is log(θ − 1).

Pitfalls: the default is that of Chen et al., at which equals tie half of the time; a fixed θ that is not that
of the data distorts the scale of the implied reward. At θ → 1 the loss is DPO's, and there a tie is
impossible. Rows on which annotators are split (two votes against two) are no ties; ties are rows at p_chosen
= 1/2 without votes, and the votes for a tie. With hard labels other algorithms leave ties out, and this one
trains on them. Leaving ties out and fitting Bradley and Terry is no substitute: the scale is then larger than
this one's (docs/labels.md). β is no KL strength in the sense of `regret`, which holds a Bradley-Terry reward
against a world without ties.

Source: Chen et al. 2024, DPO-RK; the model of Rao & Kupper 1967, eq. 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RaoKupperDPO(Algorithm):
    name: ClassVar[str] = "dpo_rao_kupper"
    spec: ClassVar[int] = 4
    ties: ClassVar[bool] = True
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Chen et al. 2024, DPO-RK"
    paper: ClassVar[str] = "arXiv:2409.17431"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    theta: Annotated[float, Gt(1), Doc("threshold parameter of Rao and Kupper's model, dimensionless")] = 3.0
    fit_theta: Annotated[bool, Doc("estimate theta beside the policy, by maximum likelihood")] = False

    def state(self) -> Mapping[str, float | Tensor]:
        return {"log_excess": self._given()} if self.fit_theta else {}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        if not self.fit_theta:
            return step.state
        import torch

        margin, log_excess = self._margin(step), self._log_excess(step)
        log_theta = _softplus(log_excess)
        tied = torch.zeros_like(margin) if step.ties is None else step.ties
        weight = torch.ones_like(margin) if step.weight is None else step.weight.to(margin.dtype)
        # d/d log θ of log σ(±x − log θ) is σ(±x − log θ) − 1, and of log(θ² − 1) is 2θ²/(θ² − 1)
        won, lost = (margin - log_theta).sigmoid() - 1, (-margin - log_theta).sigmoid() - 1
        slope = torch.where(tied > 0.5, won + lost - 2 / torch.expm1(-2 * log_theta), won)
        # and d log θ / d log(θ − 1) = (θ − 1)/θ
        slope = slope * log_excess.sigmoid()
        total = step.all_reduce(torch.where(weight > 0, weight * slope, 0.0).sum(-1, keepdim=True))
        rows = step.all_reduce(weight.sum(-1, keepdim=True))
        return {"log_excess": step.state["log_excess"] + total / rows}

    def loss(self, step: Step) -> Tensor:
        import torch

        margin, log_theta = self._margin(step), _softplus(self._log_excess(step))
        won = logsigmoid(margin - log_theta)
        if step.ties is None:
            return -won
        tied = torch.expm1(2 * log_theta).log() + won + logsigmoid(-margin - log_theta)
        return -tied.where(step.ties > 0.5, won)

    def implied_preference(self, step: Step) -> Tensor:
        margin, log_theta = self._margin(step), _softplus(self._log_excess(step))
        # P(w ≻ l) + ½ P(tie): a tie is half a win, as in p_chosen
        return 0.5 * (1 + (margin - log_theta).sigmoid() - (-margin - log_theta).sigmoid())

    def _log_excess(self, step: Step) -> Tensor:
        """log(θ − 1), of shape (..., 1) or ()."""
        import torch

        given = step.state["log_excess"] if self.fit_theta else self._given()
        scores = step.policy["chosen"].sum
        return torch.as_tensor(given, dtype=scores.dtype, device=scores.device)

    def _given(self) -> float | Tensor:
        """log(θ − 1) of the field, which is a tensor where several values train as one computation."""
        excess = self.theta - 1
        return math.log(excess) if isinstance(excess, (int, float)) else excess.log()

    def _margin(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


def _softplus(log_excess: Tensor) -> Tensor:
    """log θ of log(θ − 1)."""
    return -logsigmoid(-log_excess)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RaoKupperDPO]
