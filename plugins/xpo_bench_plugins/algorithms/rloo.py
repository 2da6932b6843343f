"""RLOO: REINFORCE on whole completions with the mean of a prompt's other samples as baseline.

    R = r(x, y) − β lr(y),   A_i = R_i − mean of R_j over the other samples j of the prompt
    loss = −A log π(y|x)

At every step new completions are sampled from the current policy for the distinct prompts of the next batch
of rows. There is no value network, no clipping, and one step per batch of samples. The note `sampled_reward`
is the mean reward of the last batch.

Args:
    beta: KL strength β, 1/nats.
    reward: `"fitted"`, the Bradley–Terry reward of the training pairs, or `"true"`, the reward that the task
        states; a task without one refuses it.
    reward_weight_decay: strength of the quadratic penalty on fitted rewards, dimensionless.
    samples: completions per prompt; the baseline needs at least 2.

Pitfalls: R is a constant, lr within it included: its own gradient has mean 0. The mean over ALL samples of a
prompt as baseline holds R_i itself and shrinks the gradient by (k−1)/k. The gradient is that of PPO with one
step per batch; the values of the losses differ.

Source: Ahmadian et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Single, Stage, Step, Tools, hookimpl
from xpo_bench_plugins.sampled import flat, log_ratios, mean_of_others, prompts_of, reward_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RLOO(Algorithm):
    name: ClassVar[str] = "rloo"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group()}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Ahmadian et al. 2024"
    paper: ClassVar[str] = "arXiv:2402.14740"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    reward: Annotated[
        Literal["fitted", "true"], Doc("the reward fitted to the training pairs, or the task's own")
    ] = "fitted"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and batch")] = 4

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=1),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = prompts_of(examples)
        drawn = flat(tools.generate(prompts, self.samples))
        reward = np.array(reward_of(self.reward, tools, self.reward_weight_decay)(drawn))
        returns = reward.reshape(len(prompts), -1) - self.beta * log_ratios(tools, drawn, len(prompts))
        advantage = (returns - mean_of_others(returns)).ravel()
        tools.note("sampled_reward", float(reward.mean()))
        return [
            Single(c.prompt, c.text, desirable=bool(a > 0), values={"advantage": float(a)})
            for c, a in zip(drawn, advantage, strict=True)
        ]

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"advantage": [e.values["advantage"] for e in examples]}

    def loss(self, step: Step) -> Tensor:
        return -step.columns["advantage"] * step.policy["completion"].sum


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RLOO]
