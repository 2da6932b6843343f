"""DPO with ties by Davidson's model: a tie is as likely as the geometric mean of both sides makes it.

    P(w ≻ l) = e^{x/2} / Z,   P(tie) = ν / Z,   Z = e^{x/2} + e^{−x/2} + ν,   x = β (lr_w − lr_l)
    loss = −log P(w ≻ l), and −log P(tie) on a tie;   lr = log π(y|x) − log π_ref(y|x), summed over tokens

Args:
    beta: strength β of the KL term that the implied reward β·lr belongs to, 1/nats.
    nu: tie parameter ν, dimensionless; two equal sides tie with probability ν/(2 + ν).
    fit_nu: estimate ν beside the policy, by maximum likelihood from `nu` on: log ν rises at every step by how
        many more ties the rows of the step have than the model expects, as a fraction of them. Records have
        the estimate as `notes.state.log_nu`.

Pitfalls: ν here is Davidson's own, as in R. The default is what Chen et al. choose theirs by: equals tie half
of the time (they write 2ν for it). A fixed ν that is not that of the data distorts the scale of the implied
reward, also on data without any tie: `fit_nu` then goes to 0, where the loss is DPO's. Rows on which
annotators are split (two votes against two) are no ties; ties are rows at p_chosen = 1/2 without votes, and
the votes for a tie. With hard labels other algorithms leave ties out, and this one trains on them. In
minibatches log ν keeps fluctuating by what chance does to the fraction of ties in a batch. β is no KL
strength in the sense of `regret`, which holds a Bradley-Terry reward against a world without ties.

Source: Chen et al. 2024, DPO-D; the model of Davidson 1970, eq. 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DavidsonDPO(Algorithm):
    name: ClassVar[str] = "dpo_davidson"
    spec: ClassVar[int] = 4
    ties: ClassVar[bool] = True
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Chen et al. 2024, DPO-D"
    paper: ClassVar[str] = "arXiv:2409.17431"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    nu: Annotated[float, Gt(0), Doc("tie parameter of Davidson's model, dimensionless")] = 2.0
    fit_nu: Annotated[bool, Doc("estimate nu beside the policy, by maximum likelihood")] = False

    def state(self) -> Mapping[str, float | Tensor]:
        return {"log_nu": self._given()} if self.fit_nu else {}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        if not self.fit_nu:
            return step.state
        import torch

        tie = self._log_probabilities(step)[2].exp()
        weight = torch.ones_like(tie) if step.weight is None else step.weight.to(tie.dtype)
        seen = torch.zeros_like(tie) if step.ties is None else step.ties
        # d log L / d log ν = Σ (1[tie] − P(tie)), of curvature P(tie)(1 − P(tie)) ≤ 1/4 a row
        more = step.all_reduce(torch.where(weight > 0, weight * (seen - tie), 0.0).sum(-1, keepdim=True))
        rows = step.all_reduce(weight.sum(-1, keepdim=True))
        return {"log_nu": step.state["log_nu"] + more / rows}

    def loss(self, step: Step) -> Tensor:
        won, _, tied = self._log_probabilities(step)
        return -won if step.ties is None else -tied.where(step.ties > 0.5, won)

    def implied_preference(self, step: Step) -> Tensor:
        won, _, tied = self._log_probabilities(step)
        return won.exp() + 0.5 * tied.exp()  # a tie is half a win, as in p_chosen

    def _log_probabilities(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """log-probabilities that the first side wins, that the second does, and of a tie; (..., N) each."""
        import torch

        half = 0.5 * self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))
        given = step.state["log_nu"] if self.fit_nu else self._given()
        log_nu = torch.as_tensor(given, dtype=half.dtype, device=half.device) + torch.zeros_like(half)
        log_z = torch.stack([half, -half, log_nu]).logsumexp(0)
        return half - log_z, -half - log_z, log_nu - log_z

    def _given(self) -> float | Tensor:
        """log ν of the field, which is a tensor where several values train as one computation."""
        return math.log(self.nu) if isinstance(self.nu, (int, float)) else self.nu.log()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [DavidsonDPO]
