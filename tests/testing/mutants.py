"""Algorithms that are broken on purpose: for each check one that it catches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Group, Single, Stage, Step

FREE: Mapping[str, Group] = {"chosen": Group(), "rejected": Group()}
Beta = Annotated[float, Gt(0), Doc("KL strength, 1/nats")]


@dataclass(frozen=True)
class Sound(Algorithm):
    """DPO's equation: passes every check; the mutants change one thing about it."""

    name: ClassVar[str] = "sound"
    source: ClassVar[str] = "Rafailov et al. 2023, eq. 7"
    beta: Beta = 0.1

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self.logit(step))

    def implied_preference(self, step: Step) -> Tensor | None:
        return self.logit(step).sigmoid()

    def logit(self, step: Step) -> Tensor:
        return self.beta * self.margin(step)

    def margin(self, step: Step) -> Tensor:
        return step.log_ratio("chosen") - step.log_ratio("rejected")


class WrongField(Sound):
    regulariser: ClassVar[tuple[str, int] | None] = ("tau", 1)


@dataclass(frozen=True)
class InfiniteDefault(Sound):
    cap: Annotated[float, Gt(0), Doc("largest margin, nats")] = math.inf

    def margin(self, step: Step) -> Tensor:
        return torch.minimum(super().margin(step), torch.as_tensor(self.cap))


@dataclass(frozen=True)
class Undocumented(Sound):
    beta: float = 0.1


@dataclass(frozen=True)
class NoUnit(Sound):
    beta: Annotated[float, Gt(0), Doc("how strong")] = 0.1


@dataclass(frozen=True)
class IgnoredOption(Sound):
    label_smoothing: Annotated[float, Ge(0), Doc("probability that a label is flipped")] = 0.1


class ThreeHalves(Sound):
    def stages(self) -> Sequence[Stage]:
        return (Stage(share=0.5),) * 3


class OneGroupMore(Sound):
    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        made = dict(super().completions(examples))
        return made if len(examples) == 1 else {**made, "other": made["chosen"]}


class MeanOverTheBatch(Sound):
    def loss(self, step: Step) -> Tensor:
        return super().loss(step).mean(-1, keepdim=True)


class RootOfMargin(Sound):
    def loss(self, step: Step) -> Tensor:
        return super().loss(step) + 0.0 * self.margin(step).sqrt()


class NormOfMargin(Sound):
    def loss(self, step: Step) -> Tensor:
        return super().loss(step) + 1e-3 * (self.margin(step) ** 2).sqrt()


class LogOfSigmoid(Sound):
    def loss(self, step: Step) -> Tensor:
        return -self.logit(step).sigmoid().log()


class NaiveOdds(Sound):
    groups: ClassVar[Mapping[str, Group]] = FREE

    def margin(self, step: Step) -> Tensor:
        odds = [
            p.mean - torch.log(1 - p.mean.exp()) for p in (step.policy["chosen"], step.policy["rejected"])
        ]
        return odds[0] - odds[1]

    def implied_preference(self, step: Step) -> None:
        return None


class UnreadReference(Sound):
    def margin(self, step: Step) -> Tensor:
        return step.policy["chosen"].sum - step.policy["rejected"].sum


class UndeclaredReference(Sound):
    groups: ClassVar[Mapping[str, Group]] = FREE


class Detached(Sound):
    def loss(self, step: Step) -> Tensor:
        return super().loss(step).detach()


class HalfDetached(Sound):
    def margin(self, step: Step) -> Tensor:
        return step.log_ratio("chosen") - step.log_ratio("rejected").detach()


class TrainsReference(Sound):
    def loss(self, step: Step) -> Tensor:
        step.reference["chosen"].token_logps.requires_grad_(True)
        return super().loss(step)


class SumsPadding(Sound):
    def margin(self, step: Step) -> Tensor:
        ratio = {g: (step.policy[g].token_logps - step.reference[g].token_logps).sum(-1) for g in step.policy}
        return ratio["chosen"] - ratio["rejected"]


class MeanWithAbsentRows(Sound):
    batch_coupled: ClassVar[bool] = True

    def loss(self, step: Step) -> Tensor:
        return super().loss(step) * (1 + step.policy["chosen"].length.mean(-1, keepdim=True))


class Counts(Sound):
    calls: ClassVar[list[int]] = []

    def loss(self, step: Step) -> Tensor:
        self.calls.append(1)
        return super().loss(step) + 1e-10 * len(self.calls)


class SumsInPlace(Sound):
    def margin(self, step: Step) -> Tensor:
        reference = step.reference["chosen"].token_logps
        value = super().margin(step)
        reference.mul_(1.0000001)
        return value


class ReadsOneBeta(Sound):
    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(float(torch.as_tensor(self.beta).flatten()[0]) * self.margin(step))


class PlaceInBatch(Sound):
    batch_coupled: ClassVar[bool] = True

    def loss(self, step: Step) -> Tensor:
        values = super().loss(step)
        return values * (1 + torch.arange(values.shape[-1], dtype=values.dtype))


class UndeclaredCoupling(Sound):
    def loss(self, step: Step) -> Tensor:
        weight = torch.ones_like(self.margin(step)) if step.weight is None else step.weight
        mean = (weight * self.margin(step)).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)
        return -logsigmoid(self.beta * (self.margin(step) - 0.1 * mean.detach()))


class ClaimsCoupling(Sound):
    batch_coupled: ClassVar[bool] = True


@dataclass(frozen=True)
class UndeclaredZ0(Algorithm):
    """KTO's equation without `batch_coupled`; it would pass wherever z0 is at its floor of 0."""

    name: ClassVar[str] = "undeclared-z0"
    accepts: ClassVar[type] = Single
    source: ClassVar[str] = "Ethayarajh et al. 2024, eq. 8"
    groups: ClassVar[Mapping[str, Group]] = {
        "completion": Group(reference=True),
        "mismatched": Group(reference=True, grad=False, mismatched=True),
    }
    beta: Beta = 0.1

    def loss(self, step: Step) -> Tensor:
        kl = step.log_ratio("mismatched") if step.exact_kl is None else step.exact_kl
        weight = torch.ones_like(kl) if step.weight is None else step.weight
        z0 = (
            torch.where(weight > 0, weight * kl, 0.0).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)
        ).clamp(min=0)
        logit = self.beta * (step.log_ratio("completion") - z0.detach())
        return torch.where(step.columns["desirable"] > 0.5, logsigmoid(-logit).exp(), logsigmoid(logit).exp())


class CopiesTheStep(Sound):
    def loss(self, step: Step) -> Tensor:
        return super().loss(Step(*(getattr(step, f.name) for f in fields(step))))


class EveryColumn(Sound):
    def loss(self, step: Step) -> Tensor:
        values = super().loss(step)
        for column in step.columns.values():
            values = values * column
        return values


class ImpliesLogit(Sound):
    def implied_preference(self, step: Step) -> Tensor | None:
        return self.logit(step)


class WrongSign(Sound):
    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(-self.logit(step))


class GlobalShuffle(Sound):
    def shape_data(self, examples: Sequence[Any], tools: Any) -> Sequence[Any]:
        return [examples[i] for i in np.random.permutation(len(examples))]


class LooksAtOtherRuns(Sound):
    def loss(self, step: Step) -> Tensor:
        values = super().loss(step)
        return values if values.ndim == 1 else values / values.shape[0]


class Remembering(Sound):
    """Sound, with a moving average of the margin; further mutants change one thing about it."""

    spec: ClassVar[int] = 2

    def state(self) -> Mapping[str, float | Tensor]:
        return {"mean": 0.0}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        weight = torch.ones_like(self.margin(step)) if step.weight is None else step.weight
        total = step.all_reduce(
            torch.where(weight > 0, weight * self.margin(step), 0.0).sum(-1, keepdim=True)
        )
        mean = total / step.all_reduce(weight.sum(-1, keepdim=True))
        return {"mean": 0.9 * step.state["mean"] + 0.1 * mean}

    def logit(self, step: Step) -> Tensor:
        return self.beta * (self.margin(step) - 0.1 * step.state["mean"])

    def implied_preference(self, step: Step) -> Tensor | None:
        return (self.beta * self.margin(step)).sigmoid()


class StateWithoutSpec(Remembering):
    spec: ClassVar[int] = 1


class StateOfTensors(Remembering):
    def state(self) -> Mapping[str, float | Tensor]:
        return {"mean": torch.zeros(1)}


class UnreadState(Remembering):
    def logit(self, step: Step) -> Tensor:
        return self.beta * self.margin(step)


class ConstantState(Remembering):
    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return step.state


class StateInPlace(Remembering):
    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        step.state["mean"].copy_(super().next_state(step)["mean"])
        return step.state


class StateOfAllRuns(Remembering):
    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return {name: values.mean().expand(values.shape) for name, values in super().next_state(step).items()}


class StateOfOneProcess(Remembering):
    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return super().next_state(replace(step, shared=None))


class StateWithAbsentRows(Remembering):
    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return super().next_state(replace(step, weight=None))


KL: Mapping[str, Group] = {name: Group(reference=True, token_kl=True) for name in ("chosen", "rejected")}


class Anchored(Sound):
    """Sound with a price of the KL at every token: passes every check."""

    spec: ClassVar[int] = 2
    groups: ClassVar[Mapping[str, Group]] = KL

    def loss(self, step: Step) -> Tensor:
        return super().loss(step) + 0.01 * (
            step.policy["chosen"].sequence_kl + step.policy["rejected"].sequence_kl
        )


class TokenKLWithoutSpec(Anchored):
    spec: ClassVar[int] = 1


class UnreadTokenKL(Anchored):
    def loss(self, step: Step) -> Tensor:
        return Sound.loss(self, step) + 0.01 * step.policy["chosen"].sequence_kl


class UndeclaredTokenKL(Anchored):
    groups: ClassVar[Mapping[str, Group]] = {**KL, "rejected": Group(reference=True)}


class SumsTokenKLOfPadding(Anchored):
    def loss(self, step: Step) -> Tensor:
        kl = step.policy["chosen"].token_kl
        assert kl is not None
        return super().loss(step) + 0.01 * kl.sum(-1)


class ClaimsTokenKL(Anchored):
    def implied_preference(self, step: Step) -> Tensor | None:
        return (
            self.logit(step) + step.policy["rejected"].sequence_kl - step.policy["chosen"].sequence_kl
        ).sigmoid()
