"""IPO-MD: the loss of IPO on pairs sampled from a mixture of policy and reference.

    y, y′ ~ π′ ∝ π^(1−m) π_ref^m,   loss = (Δ − (2 P(y ≻ y′) − 1)/(2τ))²,   Δ = lr(y) − lr(y′)

P(y ≻ y′) is a preference, which need not be transitive. Every `epochs` steps completions are sampled from the
current policy for the distinct prompts of the next batch of rows, and every two of a prompt are a pair. It
weighs the product of its two (π_ref/π)^m, which turns samples of the policy into samples of the mixture.

Args:
    tau: strength τ of the KL to the reference, 1/nats.
    mixture: m, how far the sampled policy is towards the reference, dimensionless; 0 is online IPO.
    preference: `"fitted"` to the training pairs: a log-odds per pair of completions on enumerable policies,
        without transitivity, elsewhere the difference of Bradley–Terry rewards (note
        `transitive_preference`); or `"true"`, the preference that the task states.
    reward_weight_decay: strength of the quadratic penalty on what is fitted, dimensionless.
    samples: completions per prompt.
    epochs: steps on one batch of samples; 1 is on-policy.

Pitfalls: no gradient flows into the samples or their weights. A winner drawn with probability P and the
target ±1/(2τ) have the same expected gradient as the expected target here, with more noise. Where the
gradient vanishes π ∝ π_ref exp(P(y ≻ π′)/τ), as of Nash-MD: a claim about the mixture, not about a pair, so
no preference is implied. Log-ratios are summed over tokens. A fitted preference of pairs that no row compares
is ½.

Source: Calandriello et al. 2024, IPO-MD; Azar et al. 2023, eq. 17 (the loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from xpo_bench import Algorithm, Example, Pair, Stage, Step, Tools, hookimpl
from xpo_bench_plugins.sampled import flat, log_ratios, mixture_weights, preference_of, prompts_of, win_rates

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class WeightedPair(Pair):
    """Two samples of a prompt, in the order in which they were drawn; `p_chosen` is P(first ≻ second)."""

    weight: float = 1.0


@dataclass(frozen=True)
class IPOMD(Algorithm):
    name: ClassVar[str] = "ipo_md"
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("tau", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "tau": (0.01, 1.0)
    }  # IPO's: the same constant
    source: ClassVar[str] = "Calandriello et al. 2024"
    paper: ClassVar[str] = "arXiv:2403.08635"

    tau: Annotated[float, Gt(0), Doc("strength of the KL to the reference, 1/nats")] = 0.1
    mixture: Annotated[
        float, Ge(0), Le(1), Doc("how far the sampled policy is towards the reference, dimensionless")
    ] = 0.125
    preference: Annotated[
        Literal["fitted", "true"], Doc("the preference fitted to the training pairs, or the task's own")
    ] = "fitted"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted preference, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and batch")] = 8
    epochs: Annotated[int, Ge(1), Doc("steps on one batch of samples")] = 1

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=self.epochs),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        prompts = prompts_of(examples)
        groups = tools.generate(prompts, self.samples)
        wins = win_rates(groups, preference_of(self.preference, tools, self.reward_weight_decay))
        weight = mixture_weights(log_ratios(tools, flat(groups), len(prompts)), self.mixture)
        return [
            WeightedPair(
                group[i].prompt,
                group[i].text,
                group[j].text,
                p_chosen=float(wins[x, i, j]),
                weight=float(weight[x, i] * weight[x, j]),
            )
            for x, group in enumerate(groups)
            for i, j in combinations(range(self.samples), 2)
        ]

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"preference": [e.p_chosen for e in examples], "weight": [e.weight for e in examples]}

    def loss(self, step: Step) -> Tensor:
        delta = step.log_ratio("chosen") - step.log_ratio("rejected")
        target = (2 * step.columns["preference"] - 1) / (2 * self.tau)
        return step.columns["weight"] * (delta - target) ** 2


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [IPOMD]
