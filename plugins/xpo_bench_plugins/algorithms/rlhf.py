"""RLHF in closed form: a fitted Bradley–Terry reward, then the exact KL-regularised optimum.

    r = argmin mean −log σ(r_w − r_l) + weight decay,    π(y|x) ∝ π_ref(y|x) exp(r(x, y)/β)

Nothing is trained step by step. The loss, for curves only, is the Bradley–Terry loss of the implied reward
β·lr, which is DPO's.

Args:
    beta: KL strength β, 1/nats.
    reward_weight_decay: strength of the quadratic penalty on rewards, dimensionless.

Pitfalls: without weight decay the reward of an uncontradicted preference has no finite optimum and the
policy collapses as DPO's does; the finite reward is what keeps RLHF's policy in check.

Source: Ouyang et al. 2022 (the pipeline); Rafailov et al. 2023, eq. 4 (the optimum).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Stage, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RLHF(Algorithm):
    name: ClassVar[str] = "rlhf"
    requires: ClassVar[frozenset[str]] = frozenset({"enumerable", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Ouyang et al. 2022; Rafailov et al. 2023, eq. 4"
    paper: ClassVar[str] = "arXiv:2203.02155"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01

    def stages(self) -> Sequence[Stage]:
        return (Stage(solve=True),)

    def solve(self, examples: Sequence[Any], tools: Tools) -> Mapping[Completion, float]:
        reward = tools.fit_reward(examples, self.reward_weight_decay)
        actions = [
            action
            for prompt in dict.fromkeys(pair.prompt for pair in examples)
            for action in tools.actions(prompt)
        ]
        return {action: r / self.beta for action, r in zip(actions, reward(actions), strict=True)}  # eq. 4

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RLHF]
