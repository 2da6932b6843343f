"""SamPO: DPO on as many tokens of the longer completion, drawn at random, as the shorter one has.

    loss = −log σ(β (Σ_{t ∈ S_w} lr_t − Σ_{t ∈ S_l} lr_t)),   |S_w| = |S_l| = min(|w|, |l|)

with lr_t the log-ratio of token t and S all tokens of the shorter side, and a draw without replacement from
those of the longer one, made anew at every step.

Every row gets a number from the cell's random stream. The draw of a step takes the tokens with the smallest
values of a hash of that number, the step and the token's place in the completion, so that it is the same
however rows are batched, packed, padded or shared among processes, and in every repetition of a run.

Args:
    beta: scale β of the log-ratios, 1/nats.

Pitfalls: policy and reference take the SAME tokens; with draws of their own the log-ratio at policy =
reference is not 0 but noise with the size of whole log-probabilities. The expectation of the longer side's
sum is min/len of its log-ratio: its reward depends on the length of its partner, so no single policy is the
optimum of max E r − β·KL, and neither a KL strength nor a probability is declared. Where the log-probability
of a completion is spread evenly over its tokens, as on a tabular policy, every draw gives that expectation;
at equal lengths the loss is DPO's.

Source: Lu et al. 2024 (Eliminating biased length reliance of DPO), the SamPO loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Example, Pair, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

KEYS = 1 << 24
"""Numbers that rows are given: integers that float32, in which columns may come, holds exactly."""


@dataclass(frozen=True, slots=True)
class KeyedPair(Pair):
    """A pair with the number that its draws start from."""

    key: int = 0


@dataclass(frozen=True)
class SamPO(Algorithm):
    name: ClassVar[str] = "sampo"
    spec: ClassVar[int] = 2
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    # DPO's: the same constant
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Lu et al. 2024"
    paper: ClassVar[str] = "arXiv:2406.10957"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        keys = tools.rng.integers(KEYS, size=len(examples)).tolist()
        return [
            KeyedPair(p.prompt, p.chosen, p.rejected, p.p_chosen, p.source, p.person, key)
            for p, key in zip(examples, keys, strict=True)
        ]

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"key": [float(pair.key) for pair in examples]}

    def state(self) -> Mapping[str, float | Tensor]:
        return {"step": 0.0}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return {"step": step.state["step"] + 1}

    def loss(self, step: Step) -> Tensor:
        common = step.policy["chosen"].length.minimum(step.policy["rejected"].length)
        return -logsigmoid(
            self.beta * (_log_ratio(step, "chosen", common) - _log_ratio(step, "rejected", common))
        )


def _log_ratio(step: Step, group: str, common: Tensor) -> Tensor:
    """Log-ratio of `common` tokens of a group, drawn without replacement, nats, shape (..., N)."""
    mask = step.policy[group].mask.bool()
    # the place of a token in its completion, whatever padding stands around it
    place = mask.cumsum(-1)
    order = _hashed(step.columns["key"].long().unsqueeze(-1), step.state["step"].long().unsqueeze(-1), place)
    # tokens off the mask come last; argsort twice is the rank of a token, ties by place
    order = order.masked_fill(~mask, _LAST)
    rank = order.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
    drawn = mask & (rank < common.unsqueeze(-1))
    policy, reference = (scores[group].token_logps for scores in (step.policy, step.reference))
    return policy.masked_fill(~drawn, 0.0).sum(-1) - reference.masked_fill(~drawn, 0.0).sum(-1)


_LAST = 1 << 31
"""Above every hash."""


def _hashed(key: Tensor, step: Tensor, place: Tensor) -> Tensor:
    """A number from 0 to 2³¹ − 1 per token that looks random: integers, the same on every device."""
    values = (key * 0x9E3779B1 + step * 0x85EBCA77) ^ (place * 0xC2B2AE3D)
    for _ in range(3):  # multiply and shift until each bit depends on all
        values = (values & 0xFFFFFFFF) * 0x2C1B3C6D
        values = values ^ ((values >> 17) & 0x7FFF_FFFF_FFFF)
    return (values >> 8) & 0x7FFFFFFF


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SamPO]
