"""Nash-MD: policy gradient on the probability of winning against a mixture of policy and reference.

    A_i = P(y_i ≻ π′) − ½ − τ (lr_i − mean of lr over the other samples),   π′ ∝ π^(1−m) π_ref^m
    loss = −A log π(y|x)

P(y ≻ y′) is a preference, which need not be transitive, in place of a reward. At every step new completions
are sampled from the current policy for the distinct prompts of the next batch of rows. The opponents of a
sample are the prompt's other samples, with weights (π_ref/π)^m that turn them into samples of the mixture.

Args:
    tau: strength τ of the KL to the reference, 1/nats.
    mixture: m, how far the opponent is towards the reference, dimensionless; 0 is self-play.
    preference: `"fitted"` to the training pairs: a log-odds per pair of completions on enumerable policies,
        without transitivity, elsewhere the difference of Bradley–Terry rewards (note
        `transitive_preference`); or `"true"`, the preference that the task states.
    reward_weight_decay: strength of the quadratic penalty on what is fitted, dimensionless.
    samples: completions per prompt.

Pitfalls: where the gradient vanishes π ∝ π_ref exp(P(y ≻ π′)/τ): at m = 0 the Nash equilibrium of the game
regularised by τ, at m > 0 near it, since the opponent is the mixture, not the policy. τ is no KL strength of
a reward. Without τ the policy circles around the equilibrium and does not end there. The mixture is of whole
completions; mixing the distributions of next tokens is another one. A fitted preference of pairs that no row
compares is ½.

Source: Munos et al. 2023, Nash-MD-PG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Single, Stage, Step, Tools, hookimpl
from xpo_bench_plugins.sampled import (
    flat,
    log_ratios,
    mean_of_others,
    mixture_weights,
    preference_of,
    prompts_of,
    win_rates,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NashMD(Algorithm):
    name: ClassVar[str] = "nash_md"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group()}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("tau", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "tau": (0.01, 1.0)
    }  # IPO's: the same constant
    source: ClassVar[str] = "Munos et al. 2023"
    paper: ClassVar[str] = "arXiv:2312.00886"

    tau: Annotated[float, Gt(0), Doc("strength of the KL to the reference, 1/nats")] = 0.1
    mixture: Annotated[
        float, Ge(0), Le(1), Doc("how far the opponent is towards the reference, dimensionless")
    ] = 0.125
    preference: Annotated[
        Literal["fitted", "true"], Doc("the preference fitted to the training pairs, or the task's own")
    ] = "fitted"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted preference, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and batch")] = 8

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=1),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = prompts_of(examples)
        groups = tools.generate(prompts, self.samples)
        wins = win_rates(groups, preference_of(self.preference, tools, self.reward_weight_decay))
        drawn = flat(groups)
        log_ratio = log_ratios(tools, drawn, len(prompts))
        weight = mixture_weights(log_ratio, self.mixture)
        # P(y_i ≻ π′): the weighted mean over the samples other than i, of which none depends on y_i
        against = (wins * weight[:, None, :]).sum(-1) - 0.5 * weight
        against = against / (weight.sum(-1, keepdims=True) - weight)
        advantage = against - 0.5 - self.tau * (log_ratio - mean_of_others(log_ratio))
        return [
            Single(c.prompt, c.text, desirable=bool(a > 0), values={"advantage": float(a)})
            for c, a in zip(drawn, advantage.ravel(), strict=True)
        ]

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"advantage": [e.values["advantage"] for e in examples]}

    def loss(self, step: Step) -> Tensor:
        return -step.columns["advantage"] * step.policy["completion"].sum


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [NashMD]
