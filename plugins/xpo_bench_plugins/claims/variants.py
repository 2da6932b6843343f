"""Algorithms that a claim compares with, and that nobody would train with otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xpo_bench import Group, Step, logsigmoid
from xpo_bench_plugins.algorithms.kto import KTO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class KTOWithoutReferencePoint(KTO):
    """KTO with z0 = 0: what is left of it where the estimate of the KL is always cut off at 0."""

    name: ClassVar[str] = "kto_zero"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    batch_coupled: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        logit = self.beta * step.log_ratio("completion")
        good = self.desirable_weight * logsigmoid(-logit).exp()
        bad = self.undesirable_weight * logsigmoid(logit).exp()
        return good.where(step.columns["desirable"] > 0.5, bad)
