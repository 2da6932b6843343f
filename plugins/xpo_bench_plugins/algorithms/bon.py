"""Best of n: maximum likelihood of the winners among n samples of the initial policy.

    y = argmax r(x, y_i) over y_1 … y_n ~ π_ref(·|x),    loss = −logp(y)

The reward r is fitted to the training pairs; at equal rewards the first of the samples wins. Each winner is a
record, and every prompt gets as many as `kept` and the budget allow. The minimiser is the law of the winners:
where rewards differ, π(y|x) = F(y)^n − F(y−)^n, F(y) the probability under π_ref of a reward of at most r(x,
y). The note `kl_bound` is ln n − (n−1)/n, which KL(π‖π_ref) of that law never exceeds; `sampled_reward` is
the mean fitted reward of the winners.

Args:
    candidates: samples n per prompt, of which one wins.
    kept: winners per prompt, at most; each from n samples of its own.
    reward_weight_decay: strength of the quadratic penalty on rewards, dimensionless.

Pitfalls: log-probabilities are summed over tokens; dividing by the length would teach a law that favours
short winners. Winners among the same n samples would not be independent. The bound is that of the law, not of
a policy fitted to few winners, which can lie above it. An over-optimised reward shows at large n.

Source: Stiennon et al. 2020 and Nakano et al. 2021 (best of n, and the formula of its KL); Beirami et al.
2024 (the law, and that the formula is a bound).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Single, Step, Tools, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BestOfN(Algorithm):
    name: ClassVar[str] = "bon"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group()}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("candidates", -1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"candidates": (4, 64)}
    source: ClassVar[str] = "Stiennon et al. 2020; Nakano et al. 2021; Beirami et al. 2024"
    paper: ClassVar[str] = "arXiv:2009.01325"

    candidates: Annotated[int, Ge(1), Doc("samples per winner")] = 16
    kept: Annotated[int, Ge(1), Doc("winners per prompt, at most")] = 64
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        reward = tools.fit_reward(examples, self.reward_weight_decay)
        prompts = list(dict.fromkeys(pair.prompt for pair in examples))
        winners: list[Single] = []
        won = 0.0
        for _ in range(self.kept):
            asked = prompts[: max(0, tools.rows - len(winners))]  # no more than training can visit
            if not asked:
                break
            pools = tools.generate(asked, self.candidates)
            rewards = np.array(reward([c for pool in pools for c in pool])).reshape(
                len(pools), self.candidates
            )
            best = rewards.argmax(1)  # the first at equal rewards
            winners += [
                Single(pool[i].prompt, pool[i].text, desirable=True)
                for pool, i in zip(pools, best, strict=True)
            ]
            won += float(rewards.max(1).sum())
        tools.note("kl_bound", math.log(self.candidates) - (self.candidates - 1) / self.candidates)
        tools.note("sampled_reward", won / len(winners))
        return winners

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def loss(self, step: Step) -> Tensor:
        return -step.policy["completion"].sum


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [BestOfN]
