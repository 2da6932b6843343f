"""Algorithms, tasks and metrics that a claim needs, and that nobody would ask for otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from xpo_bench import (
    Budget,
    Completion,
    Dataset,
    Evaluation,
    Group,
    ModelSpec,
    Pair,
    Step,
    Task,
    World,
    metric,
)
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.tasks.displacement import Displacement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class KTOWithoutReferencePoint(KTO):
    """KTO with z0 = 0: what is left of it where the estimate of the KL is always cut off at 0."""

    name: ClassVar[str] = "kto_zero"
    groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}
    batch_coupled: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        # z0 is the mean of the KL that the step knows
        return super().loss(replace(step, exact_kl=0 * step.log_ratio("completion").detach()))


UNLIKELY = {"y0": 0.6, "y1": 0.25, "y2": 0.1, "y3": 0.05}
"""The reference of `UnlikelyPair`, the likeliest answer first."""


@dataclass(frozen=True)
class UnlikelyPair(Task):
    """One pair of the two least likely of four answers, the same for every seed."""

    name: ClassVar[str] = "unlikely_pair"
    budget: ClassVar[Budget] = Budget(steps=200, optimizer="sgd", lr=0.5)

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        world = World(actions={"x": tuple(UNLIKELY)}, reference={"x": UNLIKELY})
        return Dataset(train=(Pair("x", "y2", "y3", 1.0),), rows=1, world=world)


@dataclass(frozen=True)
class BothSidesFirst(Displacement):
    """`displacement` after a warm start on both sides of the pairs, each with half of the steps."""

    name: ClassVar[str] = "displacement_both"

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        found = super().data(seed, model)
        pairs = [row for row in found.train if isinstance(row, Pair)]
        sides = [Completion(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)]
        return replace(found, corpus=tuple(sides))


@metric("nats")
def argmax_odds(ev: Evaluation) -> NDArray[np.float64] | None:
    """Change of the log-odds of the likeliest answer of the reference against the second likeliest."""
    if ev.world is None:
        return None
    order = ev.world.ref_logp.argsort(-1)[:, ::-1]
    first, second = order[:, :1], order[:, 1:2]
    change = ev.world.logp - ev.world.ref_logp  # (R, P, A)
    take = [(change * (place == range(change.shape[-1])).astype(float)).sum(-1) for place in (first, second)]
    odds: NDArray[np.float64] = (take[0] - take[1]).mean(-1)
    return odds
