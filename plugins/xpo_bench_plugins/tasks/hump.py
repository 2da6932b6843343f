"""hump: the true reward rises with KL, and then falls: over-optimisation, on an exact world.

One prompt with 200 actions of 24 features each, a reward linear in them with a standard deviation of .5, and
a reference that already leans to what is good, π_ref ∝ exp(2 r + taste). Sixty pairs are drawn from the
reference and labelled by Bradley and Terry's law: few, noisy, and of the actions that the reference knows.
The policy is linear in the features.

What to expect: the first steps follow what many pairs agree on and raise the true reward; later ones fit the
noise of sixty labels in 24 dimensions, and carry the policy to actions that no pair is about. `gold_reward`
against `kl` along the run is a hump: under `dpo` at β = .1 it rises from .52 to 1.25 at 1.8 nats (50 steps),
and is .36 at 5.7 nats, below where it began (means of 20 seeds; 19 of them fall by more than .1 from their
best). `attained_1`, the best within a nat, does not see the fall; `gold_reward`, which is read at the end,
does, and `xpo-bench report` draws the curve. With `pairs` 1000 there is no hump: 1.75 at the end.

Source: Gao et al. (2022), Fig. 1; Rafailov et al. (2024), arXiv 2406.02900 (the same for direct alignment).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import pairs_of_reference, world_stream

SPREAD = 0.5
"""Standard deviation of the rewards."""
LEANING = 1.0
"""Log-odds that the reference gives a standard deviation of reward."""


@dataclass(frozen=True)
class Hump(Task):
    """Exact linear world with few pairs, drawn from the reference anew for each seed."""

    name: ClassVar[str] = "hump"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; misspecification: the policy is linear as the reward is"
    model: ClassVar[ModelSpec] = ModelSpec(name="linear")
    budget: ClassVar[Budget] = Budget(steps=1000, lr=0.01)

    actions: Annotated[int, Interval(ge=2, le=2000), Doc("actions of the one prompt")] = 200
    features: Annotated[int, Interval(ge=1, le=200), Doc("features of an action")] = 24
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 60

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs of the reference's actions drawn at this seed."""
        world = linear_world(self.version, self.actions, self.features)
        rows = pairs_of_reference(world, self.pairs, stream(seed, self.name, "data"))
        return Dataset(train=rows, rows=len(rows), world=world)


@lru_cache(maxsize=8)
def linear_world(version: str, actions: int, features: int) -> World:
    """Standard normal features, a reward linear in them, and a reference that leans to it."""
    rng = world_stream(Hump.name, version, actions, features)
    found, weights = rng.standard_normal((actions, features)), rng.standard_normal(features)
    raw = (found * weights).sum(-1)
    standard = (raw - raw.mean()) / raw.std()
    scores = np.exp(LEANING * standard + rng.standard_normal(actions))
    texts = tuple(f"y{a:0{len(str(actions - 1))}d}" for a in range(actions))
    return World(
        actions={"x": texts},
        reference={"x": dict(zip(texts, (scores / scores.sum()).tolist(), strict=True))},
        reward={"x": dict(zip(texts, (SPREAD * standard).tolist(), strict=True))},
        features={"x": dict(zip(texts, map(tuple, found.tolist()), strict=True))},
    )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Hump]
