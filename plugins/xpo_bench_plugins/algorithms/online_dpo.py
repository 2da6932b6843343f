"""Online DPO: pairs sampled from the current policy and labelled by a fitted reward, then the loss of DPO.

    y, y′ ~ π(·|x) drawn anew every `epochs` steps;   w = the one of higher r, l = the other
    loss = −log σ(β Δ),   Δ = lr_w − lr_l against the initial policy

The prompts are the distinct ones of the next batch of rows. The judge r, where the paper asks a language
model, is the Bradley–Terry reward fitted once to all training pairs. Pairs of identical text are dropped; the
note `identical_share` is their fraction at the last refresh.

Args:
    beta: scale β of the log-ratios in the loss, 1/nats.
    labels: `"larger"` prefers the completion of larger fitted reward (the paper's annotator, which names a
        winner); `"bradley_terry"` draws the winner with probability σ(r − r′).
    pairs: pairs per prompt and batch, 1 in the paper, from 2 completions each.
    reward_weight_decay: strength of the quadratic penalty on rewards, dimensionless.
    epochs: steps on one batch of pairs; 1 is on-policy.

Pitfalls: the samples are constants, no gradient flows into them. With drawn labels π ∝ π_ref exp(r/β) is the
only fixed point of full support. Labels by the larger reward are certain, so there is no finite fixed point:
the policy moves to the best completion at every β and β only sets the pace, which is why no KL strength and
no implied preference is declared. Such a policy ends by sampling one text only: a pair of it has Δ = 0 and
gradient 0, and one is kept where all are identical, so that the step is taken and changes nothing.

Source: Guo et al. 2024, Alg. 1; Rafailov et al. 2023, eq. 7 (the loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Example, Pair, Stage, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OnlineDPO(Algorithm):
    name: ClassVar[str] = "online_dpo"
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Guo et al. 2024, Alg. 1"
    paper: ClassVar[str] = "arXiv:2402.04792"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios in the loss, 1/nats")] = 0.1
    labels: Annotated[
        Literal["larger", "bradley_terry"],
        Doc("the larger fitted reward wins, or wins with probability σ(r − r′)"),
    ] = "larger"
    pairs: Annotated[int, Ge(1), Doc("pairs of completions per prompt and batch")] = 1
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01
    epochs: Annotated[int, Ge(1), Doc("steps on one batch of pairs")] = 1

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=self.epochs, restart=True),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = list(dict.fromkeys(pair.prompt for pair in examples))
        drawn = [c for group in tools.generate(prompts, 2 * self.pairs) for c in group]
        everything: Sequence[Any] = tools.examples
        reward = np.array(tools.fit_reward(everything, self.reward_weight_decay)(drawn))
        margin = reward[0::2] - reward[1::2]
        first_wins = self._first_wins(margin, tools)
        pairs = [
            Pair(a.prompt, a.text, b.text) if first else Pair(a.prompt, b.text, a.text)
            for a, b, first in zip(drawn[0::2], drawn[1::2], first_wins, strict=True)
        ]
        different = [pair for pair in pairs if pair.chosen != pair.rejected]
        tools.note("identical_share", 1 - len(different) / len(pairs))
        tools.note("sampled_reward", float(reward.mean()))
        return different or pairs[:1]  # Δ = 0: a step of gradient 0

    def _first_wins(self, margin: np.ndarray, tools: Tools) -> np.ndarray:
        """Who of two completions is chosen, from the difference of their rewards."""
        if self.labels == "larger":
            return margin >= 0  # equal rewards: the two were drawn alike, so that is a fair coin
        from scipy.special import expit

        return tools.rng.random(len(margin)) < expit(margin)

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step))  # Rafailov et al., eq. 7

    def implied_preference(self, step: Step) -> Tensor | None:
        return self._logit(step).sigmoid() if self.labels == "bradley_terry" else None

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [OnlineDPO]
