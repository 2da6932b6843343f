"""ORPO: supervised loss on the chosen plus a logistic loss on the log odds ratio, no reference.

    loss = NLL(chosen) − λ log σ(log odds_w − log odds_l)
    odds = P/(1−P),   P = exp(avg),   avg = logp / length,   NLL = −avg

Args:
    odds_weight: weight λ of the odds-ratio term, dimensionless.

Pitfalls: log(1−P) loses all digits, and its gradient becomes NaN, when it is written log1p(−exp(avg)) and
avg is close to 0; selecting a safe branch afterwards does not fix the gradient.

Source: Hong et al. 2024, the definitions of L_ORPO and L_OR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

HIGHEST_AVERAGE = -1e-12
"""Averages above this, where rounding has made a probability 1, are treated as this (nats)."""


@dataclass(frozen=True)
class ORPO(Algorithm):
    name: ClassVar[str] = "orpo"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"odds_weight": (0.05, 2.0)}
    source: ClassVar[str] = "Hong et al. 2024"
    paper: ClassVar[str] = "arXiv:2403.07691"

    odds_weight: Annotated[float, Ge(0), Doc("weight of the odds-ratio term, dimensionless")] = 0.1

    def loss(self, step: Step) -> Tensor:
        chosen, rejected = step.policy["chosen"].mean, step.policy["rejected"].mean
        # NLL per token, and log σ of the log odds ratio: both of the average log-probability
        return -chosen - self.odds_weight * logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(average: Tensor) -> Tensor:
    """log(P/(1−P)) for P = exp(average), with value and gradient finite for every finite average."""
    a = average.clamp(max=HIGHEST_AVERAGE)
    # expm1 keeps 1−P exact as a → 0⁻ and goes to 1 as a → −∞, so one expression serves both ends
    return a - (-a.expm1()).log()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [ORPO]
