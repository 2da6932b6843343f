"""GRPO: rewards relative to the prompt's other samples, a clipped surrogate, and a KL penalty in the loss.

    A_i = (r_i − mean of r) / (std of r + 1e-4), over the samples of the prompt
    loss = −min(ρ A, clip(ρ, 1−c, 1+c) A) + β k3,   ρ = (π(y|x)/π_old(y|x))^(1/length)
    k3 = mean over tokens of e^d − d − 1,   d = log π_ref(token) − log π(token)

Every `epochs` steps new completions are sampled from the current policy for the distinct prompts of the next
batch of rows. At one step per batch, as in the paper, ρ is 1, and the gradient that of the paper's ratios of
single tokens. The note `sampled_reward` is the mean reward of the last batch.

Args:
    beta: weight β of the KL penalty, 1/nats.
    reward: `"fitted"`, the Bradley–Terry reward of the training pairs, or `"true"`, the reward that the task
        states; a task without one refuses it.
    reward_weight_decay: strength of the quadratic penalty on fitted rewards, dimensionless.
    samples: completions per prompt; the standard deviation needs at least 2.
    clip: half-width c of the interval in which the ratio counts, dimensionless.
    epochs: steps on one batch of samples; 1 in the paper.
    scale: `"std"` divides by the standard deviation, `"none"` does not (Dr. GRPO).
    lengths: `"mean"` averages over a completion's tokens, `"sum"` adds them up (Dr. GRPO).

Pitfalls: β is NOT the β of max E r − β·KL. The gradient of k3 on samples of π is that of KL(π_ref‖π), so that
with `scale="none"` and one-token completions the optimum is π = β π_ref/(λ − r), and the standard deviation
of each prompt rescales it. Hence no KL strength, and no `regret`. Beyond one step per batch the ratio is the
geometric mean of the paper's ratios of tokens, since samples keep the log-probability of the whole. Samples
of equal reward have A = 0.

Source: Shao et al. 2024, GRPO with outcome supervision; Liu et al. 2025, arXiv:2503.20783 (Dr. GRPO).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Scores, Single, Stage, Step, Tools, hookimpl
from xpo_bench_plugins.numerics import bounded_expm1
from xpo_bench_plugins.sampled import flat, prompts_of, reward_of

if TYPE_CHECKING:
    from torch import Tensor

LEAST_STD = 1e-4
"""Added to the standard deviation: rewards that differ by rounding alone are equal."""


@dataclass(frozen=True)
class GRPO(Algorithm):
    name: ClassVar[str] = "grpo"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # around the paper's .04
    source: ClassVar[str] = "Shao et al. 2024; Liu et al. 2025"
    paper: ClassVar[str] = "arXiv:2402.03300"

    beta: Annotated[float, Ge(0), Doc("weight of the KL penalty, 1/nats")] = 0.04
    reward: Annotated[
        Literal["fitted", "true"], Doc("the reward fitted to the training pairs, or the task's own")
    ] = "fitted"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and batch")] = 8
    clip: Annotated[float, Gt(0), Lt(1), Doc("half-width of the interval of the ratio, dimensionless")] = 0.2
    epochs: Annotated[int, Ge(1), Doc("steps on one batch of samples")] = 1
    scale: Annotated[
        Literal["std", "none"], Doc("divide advantages by the standard deviation of the prompt's rewards")
    ] = "std"
    lengths: Annotated[
        Literal["mean", "sum"], Doc("average the loss over a completion's tokens, or add it up")
    ] = "mean"

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=self.epochs),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = prompts_of(examples)
        drawn = flat(tools.generate(prompts, self.samples))
        reward = np.array(reward_of(self.reward, tools, self.reward_weight_decay)(drawn))
        advantage = self._advantage(reward.reshape(len(prompts), -1)).ravel()
        tools.note("sampled_reward", float(reward.mean()))
        return [
            Single(
                c.prompt, c.text, desirable=bool(a > 0), values={"advantage": float(a), "old_logp": float(p)}
            )
            for c, a, p in zip(drawn, advantage, tools.logps(drawn), strict=True)
        ]

    def _advantage(self, reward: np.ndarray) -> np.ndarray:
        """Relative to the prompt's samples, shape (prompts, samples)."""
        centred = reward - reward.mean(-1, keepdims=True)
        if self.scale == "std":
            return np.asarray(centred / (reward.std(-1, ddof=1, keepdims=True) + LEAST_STD))
        return np.asarray(centred)

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {name: [e.values[name] for e in examples] for name in ("advantage", "old_logp")}

    def loss(self, step: Step) -> Tensor:
        policy, advantage = step.policy["completion"], step.columns["advantage"]
        tokens = policy.length.clamp(min=1.0)
        ratio = bounded_expm1((policy.sum - step.columns["old_logp"]) / tokens) + 1
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        surrogate = (ratio * advantage).minimum(clipped * advantage)
        values = self.beta * _k3(policy, step.reference["completion"]) - surrogate
        return values * tokens if self.lengths == "sum" else values


def _k3(policy: Scores, reference: Scores) -> Tensor:
    """Mean over tokens of π_ref/π − log(π_ref/π) − 1, at least 0, shape `(..., N)`."""
    absent = ~policy.mask.bool()
    d = reference.token_logps.masked_fill(absent, 0.0) - policy.token_logps.masked_fill(absent, 0.0)
    return (bounded_expm1(d) - d).sum(-1) / policy.length.clamp(min=1.0)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [GRPO]
