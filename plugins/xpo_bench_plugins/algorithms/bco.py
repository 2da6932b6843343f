"""Binary classifier optimization: unpaired labels, a classifier whose logit is the shifted reward.

    desirable:    loss = −log σ(r − δ),   undesirable:  loss = −ψ log σ(δ − r),   r = β lr
    δ = ½ (mean of r over desirable + mean of r over undesirable completions), without gradient

Each label is averaged over its own rows of the step, however many of each there are, and the two means are
added. δ is the algorithm's state: exponential moving averages of both means, 0 at first, where every reward
is 0; a step uses what the steps before it have seen.

Args:
    beta: scale β of the log-ratio, 1/nats.
    momentum: fraction of the averages in δ that stays at each step.
    matching: `"prompt"` weights undesirable rows by ψ = the ratio of their prompt's shares of the desirable
        and of the undesirable rows, the paper's matching of the two distributions of prompts; `"none"` has
        ψ = 1.

Pitfalls: without δ the bound on DPO's loss is loose, and rewards of one sign saturate the classifier; a mean
over all rows in place of the mean of two means moves δ with the balance of labels. The paper estimates ψ by a
classifier on embeddings of prompts; here ψ is counted, which is that classifier with a feature per prompt,
and needs prompts with rows of both labels. Where every prompt has as many of each, ψ is 1.

Source: Jung et al. 2024.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from xpo_bench import Algorithm, Example, Group, Single, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

MATCH = "bco_match"
"""Name of ψ among `Single.values`."""


@dataclass(frozen=True)
class BCO(Algorithm):
    name: ClassVar[str] = "bco"
    spec: ClassVar[int] = 2
    accepts: ClassVar[type] = Single
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Jung et al. 2024"
    paper: ClassVar[str] = "arXiv:2404.04656"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratio, 1/nats")] = 0.1
    momentum: Annotated[
        float, Ge(0), Lt(1), Doc("fraction of the averages in the shift that stays at each step")
    ] = 0.9
    matching: Annotated[
        Literal["none", "prompt"], Doc("weight undesirable rows by how desirable their prompt's rows are")
    ] = "none"

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        if self.matching == "none":
            return examples
        good, bad = _rows(examples, True), _rows(examples, False)
        if not good.keys() & bad.keys():
            raise ValueError(
                "bco: no prompt has rows of both labels, so that matching by prompt leaves nothing; "
                'set bco.matching to "none"'
            )
        balance = sum(bad.values()) / sum(good.values())
        return [
            e
            if e.desirable
            else replace(e, values={**e.values, MATCH: balance * good.get(e.prompt, 0.0) / bad[e.prompt]})
            for e in examples
        ]

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {
            "desirable": [float(e.desirable) for e in examples],
            "match": [e.values.get(MATCH, 1.0) for e in examples],
        }

    def state(self) -> Mapping[str, float | Tensor]:
        return {"desirable": 0.0, "undesirable": 0.0}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        import torch

        reward = self.beta * step.log_ratio("completion")
        out = {}
        for name, rows in _labels(step).items():
            weight = rows * step.columns["match"]
            total = step.all_reduce(torch.where(weight > 0, weight * reward, 0.0).sum(-1, keepdim=True))
            count = step.all_reduce(weight.sum(-1, keepdim=True))
            old = step.state[name]
            mean = total / torch.where(count > 0, count, 1.0)
            # a step without rows of the label says nothing about its mean
            out[name] = torch.where(count > 0, self.momentum * old + (1 - self.momentum) * mean, old)
        return out

    def loss(self, step: Step) -> Tensor:
        shift = (step.state["desirable"] + step.state["undesirable"]) / 2
        logit = self.beta * step.log_ratio("completion") - shift
        desirable = step.columns["desirable"] > 0.5
        examples, wanted = _counts(step)
        # the runner divides by all examples of the step: turn that into a mean over each label
        good = -logsigmoid(logit) * (examples / wanted.clamp(min=1.0))
        bad = -step.columns["match"] * logsigmoid(-logit) * (examples / (examples - wanted).clamp(min=1.0))
        return good.where(desirable, bad)


def _rows(examples: Sequence[Any], desirable: bool) -> dict[str, float]:
    """Prompt -> its rows of a label; an outcome of a soft label counts by its share."""
    rows: defaultdict[str, float] = defaultdict(float)
    for e in examples:
        if e.desirable == desirable:
            rows[e.prompt] += e.share
    return dict(rows)


def _labels(step: Step) -> dict[str, Tensor]:
    """1 on the rows of a label that are there, shape `(..., N)`, by label."""
    import torch

    desirable = (step.columns["desirable"] > 0.5).to(step.columns["desirable"].dtype)
    there = torch.ones_like(desirable) if step.weight is None else step.weight.to(desirable.dtype)
    return {"desirable": there * desirable, "undesirable": there * (1 - desirable)}


def _counts(step: Step) -> tuple[Tensor, Tensor]:
    """(examples, desirable rows) of the full step, shape `(..., 1)`; of the given rows without totals."""
    if "examples" in step.totals and "desirable" in step.totals:
        return step.totals["examples"], step.totals["desirable"]
    rows = {name: there.sum(-1, keepdim=True) for name, there in _labels(step).items()}
    return rows["desirable"] + rows["undesirable"], rows["desirable"]


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [BCO]
