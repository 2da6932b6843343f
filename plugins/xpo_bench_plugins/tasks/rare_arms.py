"""rare_arms: twenty actions of which eighteen are rare, in the reference and so in the pairs.

One prompt; two common actions have .35 of the reference each, and eighteen share the other .3. The first
earns 1, all others .5, and 200 pairs are drawn from the reference and labelled by Bradley and Terry's law.
Every common action is compared often and every rare one a few times, so that by luck some rare ones win most
of what they play.

What to expect: DPO believes them and moves there, the farther the smaller β; the reference alone earns .675.
A regulariser that feels the probability ratio itself and not its logarithm alone, as χPO's z + ln z, pays for
mass on what the reference hardly knows. Compare algorithms at one β and at the best β of each: what is lost
at a small one may be had again at a large one. Over 20 seeds DPO earns .53 at β = .1 and at best .69, at
β = 3, where it hardly moves; DPO with χPO's link, clipped at twice the range of rewards, earns .76 at β = .1,
its best. `attained` reads the best of the path and hides the fall; `gold_reward` is read at the end. Pairs of
two actions that earn the same are coins, without a `p_chosen`, and are trained on as any other.

Source: this suite; after Huang et al. (2024), arXiv 2407.13399 (over-optimisation and single-policy
coverage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import pairs_of_reference

COMMON = 2
BEST, OTHER = 1.0, 0.5
"""Rewards of the first action, and of all others."""


@dataclass(frozen=True)
class RareArms(Task):
    """Two common actions and eighteen rare ones; pairs drawn from the reference anew for each seed."""

    name: ClassVar[str] = "rare_arms"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; other coverage than the reference's: pairs are drawn from it"
    budget: ClassVar[Budget] = Budget(steps=1000, lr=0.05)

    actions: Annotated[int, Interval(ge=3, le=1000), Doc("actions of the one prompt, two of them common")] = (
        20
    )
    rare: Annotated[
        float, Interval(gt=0, lt=1), Doc("probability that the reference gives to all rare actions together")
    ] = 0.3
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 200

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the options, and pairs of the reference's actions drawn at this seed."""
        texts = tuple(f"y{a:0{len(str(self.actions - 1))}d}" for a in range(self.actions))
        reference = np.full(self.actions, self.rare / (self.actions - COMMON))
        reference[:COMMON] = (1 - self.rare) / COMMON
        world = World(
            actions={"x": texts},
            reference={"x": dict(zip(texts, reference.tolist(), strict=True))},
            reward={"x": dict.fromkeys(texts, OTHER) | {texts[0]: BEST}},
        )
        rows = pairs_of_reference(world, self.pairs, stream(seed, self.name, "data"))
        return Dataset(train=rows, rows=len(rows), world=world)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [RareArms]
