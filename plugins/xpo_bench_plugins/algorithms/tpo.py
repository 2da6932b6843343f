"""Triple preference optimization: a logistic loss on a pair and the likelihood of a third, gold completion.

    loss = −log σ(β (logp_w − logp_l) − γ) + α · NLL(gold),   NLL = −logp / length

The paper's rows hold three completions: the gold one, the best of its prompt, and a pair of others. Rows of
pairs do not name it, so `gold` says which completion it is. The note `gold_is_chosen` is the fraction of
pairs whose chosen completion is their gold one.

Args:
    beta: scale β of the log-probability margin, 1/nats.
    gold_weight: weight α of the supervised term, dimensionless.
    gamma: target margin γ on the scaled difference, dimensionless; 0 in TPO, above in TPO-L.
    normalize: `"none"` compares summed log-probabilities (TPO), `"tokens"` those per token (TPO-L).
    gold: `"best"`, of all completions of the prompt in the rows, the one with most wins less losses;
        `"chosen"`, the pair's own chosen completion.

Pitfalls: with a single pair per prompt the best completion IS the chosen one, so that the loss is CPO's: what
sets TPO apart needs prompts with three completions or more. At equal wins less losses the chosen completion
is its own gold. The margin uses sums and the supervised term a per-token mean; no reference is loaded or run.

Source: Saeidi et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Group, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

EQUAL = 1e-9
"""Sums of wins that differ by less are equal: those of soft labels are rounded."""


@dataclass(frozen=True)
class TPO(Algorithm):
    name: ClassVar[str] = "tpo"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group(), "rejected": Group(), "gold": Group()}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.1)}  # CPO's
    source: ClassVar[str] = "Saeidi et al. 2024"
    paper: ClassVar[str] = "arXiv:2405.16681"

    beta: Annotated[float, Gt(0), Doc("scale of the log-probability margin, 1/nats")] = 0.1
    gold_weight: Annotated[
        float, Ge(0), Doc("weight of the supervised loss on the gold completion, dimensionless")
    ] = 1.0
    gamma: Annotated[float, Ge(0), Doc("target margin on the scaled difference, dimensionless")] = 0.0
    normalize: Annotated[
        Literal["none", "tokens"], Doc("compare log-probabilities of completions, or per token")
    ] = "none"
    gold: Annotated[
        Literal["best", "chosen"], Doc("the prompt's best completion by wins, or the chosen one of the pair")
    ] = "best"

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        golds = zip(self._gold(examples), examples, strict=True)
        alike = sum(pair.share for gold, pair in golds if gold.text == pair.chosen)
        tools.note("gold_is_chosen", alike / sum(pair.share for pair in examples))
        return examples

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        return {
            "chosen": [Completion(e.prompt, e.chosen) for e in examples],
            "rejected": [Completion(e.prompt, e.rejected) for e in examples],
            "gold": self._gold(examples),
        }

    def _gold(self, pairs: Sequence[Any]) -> list[Completion]:
        """The gold completion of every pair."""
        chosen = [Completion(pair.prompt, pair.chosen) for pair in pairs]
        if self.gold == "chosen":
            return chosen
        score = dict.fromkeys(chosen, 0.0)
        for own, pair in zip(chosen, pairs, strict=True):
            score[own] += pair.share
        for pair in pairs:
            rejected = Completion(pair.prompt, pair.rejected)
            score[rejected] = score.get(rejected, 0.0) - pair.share
        best: dict[str, Completion] = {}
        for completion, wins in score.items():
            if completion.prompt not in best or wins > score[best[completion.prompt]] + EQUAL:
                best[completion.prompt] = completion
        return [own if score[own] >= score[best[own.prompt]] - EQUAL else best[own.prompt] for own in chosen]

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self._logit(step) - self.gamma) - self.gold_weight * step.policy["gold"].mean

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        chosen, rejected = step.policy["chosen"], step.policy["rejected"]
        if self.normalize == "tokens":
            return self.beta * (chosen.mean - rejected.mean)
        return self.beta * (chosen.sum - rejected.sum)


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [TPO]
