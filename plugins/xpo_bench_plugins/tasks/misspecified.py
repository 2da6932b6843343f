"""misspecified: a policy of one parameter that no data can make right: DPO falls below its reference.

One prompt and three actions with rewards (1, 2, 0) and a uniform reference; the policy is linear in one
feature, φ = (1, −2, 0), so that it can favour the first action or the second, and never puts them in the
order of their rewards, second before first before third. Preferences are Bradley and Terry's, and there are
ten times as many rows of the first action against the third as of the other two pairs: `weight` .1. The rows
are the population, in whole rows, the same for every seed. The task's β is 1.

What to expect, at β = 1: the fitted pairs are mostly 1 ≻ 3, which a larger parameter explains, so DPO ends at
θ = .150 and earns .911, less than the reference's 1.000; the best policy of the class for the same objective
E r − β·KL is at θ = −.603 and earns 1.479, which `ppo` finds, whose reward is fitted to the pairs apart from
the policy. More rows do not help, other weights do: at `weight` 1 DPO earns 1.296. On `--model tabular` the
order can be expressed, and both end at π ∝ exp(r), which earns 1.575. The frontier is that of all policies:
what the class cannot reach counts as a gap.

Source: Gopalan et al. (2025), arXiv 2510.20413 (DPO as a misspecified estimator).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, Dataset, ModelSpec, Pair, Task, World, hookimpl

REWARD = {"y1": 1.0, "y2": 2.0, "y3": 0.0}
FEATURE = {"y1": (1.0,), "y2": (-2.0,), "y3": (0.0,)}
ROWS = 1000
"""Rows of a pair of weight 1: probabilities are right to half a row, in these or in the fewer of others."""


@dataclass(frozen=True)
class Misspecified(Task):
    """Three actions, one feature, uneven pairs; the rows are the population."""

    name: ClassVar[str] = "misspecified"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; finite data: the rows are the population"
    model: ClassVar[ModelSpec] = ModelSpec(name="linear")
    budget: ClassVar[Budget] = Budget(steps=1000, lr=0.01)

    weight: Annotated[
        float,
        Interval(ge=0.01, le=1),
        Doc("rows of the pairs with the best action, per row of the pair of the other two"),
    ] = 0.1

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The rows of all three pairs, in proportion to how often they are compared and won."""
        rows: list[Pair] = []
        for a, b, weight in (("y1", "y2", self.weight), ("y1", "y3", 1.0), ("y2", "y3", self.weight)):
            p = 1 / (1 + math.exp(REWARD[b] - REWARD[a]))
            count = round(ROWS * weight)
            wins = round(count * p)
            rows += [Pair("x", a, b, p)] * wins + [Pair("x", b, a, 1 - p)] * (count - wins)
        world = World(
            actions={"x": tuple(REWARD)},
            reference={"x": dict.fromkeys(REWARD, 1 / 3)},
            reward={"x": REWARD},
            features={"x": FEATURE},
            beta=1.0,
        )
        return Dataset(train=tuple(rows), rows=len(rows), world=world)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Misspecified]
