"""PPO: a fitted reward, then on-policy policy gradient with a clipped surrogate and a leave-one-out baseline.

    R = r(x, y) − β lr(y),   A_i = R_i − mean of R_j over the other samples j of the prompt
    loss = −min(ρ A, clip(ρ, 1−c, 1+c) A),   ρ = π(y|x) / π_old(y|x)

Every `epochs` steps new completions are sampled from the current policy for the distinct prompts of the
next batch of rows; the reward is fitted once, to all of them. One pass over each sample is RLOO, since ρ is
then 1. There is no value network.

Args:
    beta: KL strength β, 1/nats.
    reward_weight_decay: strength of the quadratic penalty on rewards, dimensionless.
    samples: completions per prompt; the baseline needs at least 2.
    clip: half-width c of the interval in which the probability ratio counts, dimensionless.
    epochs: steps on one batch of samples.

Pitfalls: R and A are constants: neither they nor π_old carry a gradient; the ratio is that of the whole
completion, not of single tokens; the minimum, not the clipped term alone, is what stops large steps.

Source: Schulman et al. 2017, eq. 7 (clipped surrogate); Ahmadian et al. 2024 (leave-one-out baseline).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Single, Stage, Step, Tools, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PPO(Algorithm):
    name: ClassVar[str] = "ppo"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group()}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Schulman et al. 2017, eq. 7; Ahmadian et al. 2024"
    paper: ClassVar[str] = "arXiv:1707.06347"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and batch")] = 4
    clip: Annotated[
        float, Gt(0), Lt(1), Doc("half-width of the interval of the probability ratio, dimensionless")
    ] = 0.2
    epochs: Annotated[int, Ge(1), Doc("steps on one batch of samples")] = 1

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=self.epochs, restart=True),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = list(dict.fromkeys(pair.prompt for pair in examples))
        drawn = [c for group in tools.generate(prompts, self.samples) for c in group]
        old_logp = np.array(tools.logps(drawn))
        log_ratio = old_logp - np.array(tools.logps(drawn, reference=True))
        everything: Sequence[Any] = tools.examples
        reward = np.array(tools.fit_reward(everything, self.reward_weight_decay)(drawn))
        advantage = leave_one_out(
            (reward - self.beta * log_ratio).reshape(len(prompts), self.samples)
        ).ravel()
        return [
            Single(
                c.prompt, c.text, desirable=bool(a > 0), values={"advantage": float(a), "old_logp": float(p)}
            )
            for c, a, p in zip(drawn, advantage, old_logp, strict=True)
        ]

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {name: [e.values[name] for e in examples] for name in ("advantage", "old_logp")}

    def loss(self, step: Step) -> Tensor:
        advantage = step.columns["advantage"]
        # one action is a whole completion, so the ratio is π(y|x)/π_old(y|x)
        ratio = (step.policy["completion"].sum - step.columns["old_logp"]).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -(ratio * advantage).minimum(clipped * advantage)  # Schulman et al., eq. 7


def leave_one_out(returns: np.ndarray) -> np.ndarray:
    """Each return minus the mean of the others of its row; shape (prompts, samples), samples ≥ 2."""
    n = returns.shape[-1]
    # r_i − (Σ_j r_j − r_i)/(n − 1) = (r_i − r̄)·n/(n − 1)
    return np.asarray((returns - returns.mean(-1, keepdims=True)) * n / (n - 1))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [PPO]
