"""unseen: actions that no pair contains, and features that they share with those that some do.

Eight prompts with twelve actions each and a reference that is not uniform. An action has four features, the
reward is one linear function of them for all prompts, and the policy is linear in the same features: the
class holds the optimum. Training pairs contain half of each prompt's actions (`coverage`); held-out pairs are
of the other half alone, labelled by the same reward.

What to expect: a linear policy ranks the actions it never saw, and `heldout_reward_accuracy` says how well;
`unseen_mass` is what it gives to them. A table cannot: the logits of actions that no pair contains have
gradient 0, so that they keep their odds, and `--model tabular` has a held-out accuracy of exactly ½ under
any loss of pairs. What differs there is the mass that all of them lose or gain together. The reference counts
wherever the data are silent, which is why `attained_1` on the table stays below.

Source: this suite; after Xu et al. (2024), arXiv 2404.10719 (out-of-distribution actions), and Song et al.
(2024), arXiv 2406.01462 (coverage).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import covered_actions, sample_pairs, world_stream

FEATURES = 4
SPREAD = 2.0
"""Standard deviation of the rewards of random actions."""


@dataclass(frozen=True)
class Unseen(Task):
    """Exact linear world; held-out pairs are of actions that no training pair contains."""

    name: ClassVar[str] = "unseen"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; misspecification: the policy is linear as the reward is"
    model: ClassVar[ModelSpec] = ModelSpec(name="linear")
    budget: ClassVar[Budget] = Budget(steps=1000, batch_size=256, lr=0.05)

    prompts: Annotated[int, Interval(ge=1, le=1000), Doc("prompts of the world")] = 8
    actions: Annotated[int, Interval(ge=4, le=1000), Doc("actions of every prompt")] = 12
    coverage: Annotated[
        float, Interval(gt=0, lt=1), Doc("fraction of each prompt's actions that training pairs contain")
    ] = 0.5
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 512
    heldout_pairs: Annotated[int, Interval(ge=0), Doc("held-out pairs of the other actions")] = 256

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs drawn at this seed; `p_chosen` is the true probability.

        Raises:
            xpo_bench.errors.DataError: too few pairs to contain every covered action.
        """
        world = linear_world(self.name, self.version, self.prompts, self.actions)
        seen = covered_actions(world, self.name, self.version, self.coverage)
        # two actions at least on either side, so that there are pairs of both kinds
        seen = {prompt: texts[: self.actions - 2] for prompt, texts in seen.items()}
        others = {
            prompt: tuple(text for text in texts if text not in seen[prompt])
            for prompt, texts in world.actions.items()
        }
        rng = stream(seed, self.name, "data")
        return Dataset(
            train=sample_pairs(world, seen, self.pairs, rng),
            heldout=sample_pairs(world, others, self.heldout_pairs, rng, cover=False),
            rows=self.pairs + self.heldout_pairs,
            world=world,
        )


@lru_cache(maxsize=8)
def linear_world(name: str, version: str, prompts: int, actions: int) -> World:
    """Actions with standard normal features, a reward linear in them, and a reference of normal scores."""
    weights = world_stream(name, version, "weights").standard_normal(FEATURES)
    weights *= SPREAD / np.linalg.norm(weights)
    texts = tuple(f"y{a:0{len(str(actions - 1))}d}" for a in range(actions))
    reward, reference, features = {}, {}, {}
    for i in range(prompts):
        rng = world_stream(name, version, i, actions)
        found = rng.standard_normal((actions, FEATURES))
        taste = np.exp(rng.standard_normal(actions))
        # a sum for every action, not a matrix product, whose rounding differs between machines
        reward[f"x{i}"] = dict(zip(texts, (found * weights).sum(-1).tolist(), strict=True))
        reference[f"x{i}"] = dict(zip(texts, (taste / taste.sum()).tolist(), strict=True))
        features[f"x{i}"] = dict(zip(texts, map(tuple, found.tolist()), strict=True))
    return World(actions=dict.fromkeys(reward, texts), reference=reference, reward=reward, features=features)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Unseen]
