"""SPPO: in iterations, the log-ratio to the last policy is regressed on the win rate against that policy.

    iteration t:  y ~ π_t,   loss = (log π(y|x)/π_t(y|x) − η (P(y ≻ π_t) − ½))²

P(y ≻ π_t) is the mean of a preference, which need not be transitive, over the samples of the prompt. Every
iteration starts from, and takes as reference, the policy of the one before, and samples once, for the
distinct prompts of one batch of rows.

Args:
    eta: step size η of an iteration, nats; the paper's 1,000 is far from reached in its few steps.
    iterations: number of iterations, among which the step budget is split equally.
    preference: `"fitted"` to the training pairs: a log-odds per pair of completions on enumerable policies,
        without transitivity, elsewhere the difference of Bradley–Terry rewards (note
        `transitive_preference`); or `"true"`, the preference that the task states.
    reward_weight_decay: strength of the quadratic penalty on what is fitted, dimensionless.
    samples: completions per prompt and iteration.

Pitfalls: an iteration multiplies π_t by exp(η P(y ≻ π_t)). The paper's convergence to the Nash equilibrium is
that of the AVERAGE of the iterates, at small η; the last iterate, which is what training ends with, circles
around it and moves outwards when preferences are cyclic. Nothing ties it to the initial policy: more
iterations are less regularised. ½ stands for the log of the normaliser over η, its first order. A fitted
preference of pairs that no row compares is ½.

Source: Wu et al. 2024, Alg. 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Single, Stage, Step, Tools, hookimpl
from xpo_bench_plugins.sampled import flat, preference_of, prompts_of, win_rates

if TYPE_CHECKING:
    from torch import Tensor

ONCE = 1 << 30
"""Steps between refreshes: more than an iteration has, so that it samples once, at its start."""


@dataclass(frozen=True)
class SPPO(Algorithm):
    name: ClassVar[str] = "sppo"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("eta", -1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"eta": (2.0, 100.0)}  # 1/β of DPO's β
    source: ClassVar[str] = "Wu et al. 2024, Alg. 1"
    paper: ClassVar[str] = "arXiv:2405.00675"

    eta: Annotated[float, Gt(0), Doc("step size of an iteration, nats")] = 10.0
    iterations: Annotated[int, Ge(1), Doc("number of iterations")] = 3
    preference: Annotated[
        Literal["fitted", "true"], Doc("the preference fitted to the training pairs, or the task's own")
    ] = "fitted"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted preference, dimensionless")
    ] = 0.01
    samples: Annotated[int, Ge(2), Doc("completions per prompt and iteration")] = 8

    def stages(self) -> Sequence[Stage]:
        one = Stage(share=1 / self.iterations, reference="previous", restart=True, refresh=ONCE)
        return (one,) * self.iterations

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        groups = tools.generate(prompts_of(examples), self.samples)
        wins = win_rates(groups, preference_of(self.preference, tools, self.reward_weight_decay)).mean(-1)
        return [
            Single(c.prompt, c.text, desirable=bool(win > 0.5), values={"win": float(win)})
            for c, win in zip(flat(groups), wins.ravel(), strict=True)
        ]

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {"completion": [Completion(e.prompt, e.completion) for e in examples]}

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"win": [e.values["win"] for e in examples]}

    def loss(self, step: Step) -> Tensor:
        return (step.log_ratio("completion") - self.eta * (step.columns["win"] - 0.5)) ** 2


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SPPO]
