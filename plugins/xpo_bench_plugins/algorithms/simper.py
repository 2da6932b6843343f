"""SimPER: raise the chosen completion's inverse perplexity and lower the rejected one's; no hyperparameters.

    loss = −exp(avg_w) + exp(avg_l),   avg = logp / length

Pitfalls: exp(avg) is the geometric mean of the token probabilities, between 0 and 1, so that the loss lies
between −1 and 1 and nothing in it holds the policy near the reference: no regulariser is declared, and no
reference is loaded or run. The gradient on logp is exp(avg)/length: a completion of probability near 0 is
neither raised nor lowered. On completions of one token the loss is the policy gradient of +1 for the winner
and −1 for the loser, whose optimum is a single completion, at any preference.

Source: Xiao et al. 2025, the SimPER objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xpo_bench import Algorithm, Group, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimPER(Algorithm):
    name: ClassVar[str] = "simper"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group()}
    source: ClassVar[str] = "Xiao et al. 2025"
    paper: ClassVar[str] = "arXiv:2502.00883"

    def loss(self, step: Step) -> Tensor:
        return step.policy["rejected"].mean.exp() - step.policy["chosen"].mean.exp()


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SimPER]
