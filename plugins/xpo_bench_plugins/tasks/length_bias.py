"""length_bias: completions of several lengths, whose training labels favour the longer one beyond its worth.

A bandit whose completions have 1 to 12 tokens, drawn once for the version and nothing to do with the reward.
A tabular policy spreads the log-probability of a completion evenly over its tokens, so that losses of sums
and of means per token differ here, as they cannot where every completion is one token. Training labels follow

    P(a ≻ b | x) = σ(r(x, a) − r(x, b) + length_bias · (ℓ(x, a) − ℓ(x, b)))

with ℓ the number of tokens, standardised over the completions of the prompt. Held-out pairs are labelled by
the reward alone, and `p_chosen` is σ(r(x, a) − r(x, b)) everywhere. The Bradley–Terry reward of the training
labels is thus r + length_bias · ℓ, while KL, expected reward and the reward–KL frontier are exact for r.

What to expect: what fits the labels earns less than the frontier has, the more so the larger `length_bias`;
compare `accuracy_lc` with `reward_accuracy`. Losses of the summed log-ratio (`dpo`, `cdpo`, `slic`) do not
see lengths and learn the bias as if it were reward. Means per token (`simpo`, `orpo`, `ipo`) ask n times as
much of a completion of n tokens, which moves short completions and long ones differently, for better or
worse.

Source: this suite; after Park et al. (2024) and Singhal et al. (2023) for the bias, Meng et al. (2024) for
means per token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Interval
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import Annotators, bradley_terry_world, sample_pairs, world_stream


@dataclass(frozen=True)
class LengthBias(Task):
    """Exact world with completions of several lengths and length-biased labels."""

    name: ClassVar[str] = "length_bias"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = (
        "where in a completion a loss acts: its tokens share one log-probability evenly"
    )
    budget: ClassVar[Budget] = Budget(steps=2000, batch_size=256, lr=0.01, sampling="epochs")

    prompts: Annotated[int, Interval(ge=1, le=1000), Doc("prompts of the world")] = 8
    actions: Annotated[int, Interval(ge=2, le=1000), Doc("completions of every prompt")] = 6
    longest: Annotated[int, Interval(ge=2, le=64), Doc("tokens of a completion at most; the least is 1")] = 12
    length_bias: Annotated[
        float, Ge(0), Doc("log-odds that training labels give a standard deviation of length")
    ] = 2.0
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 1024
    heldout_pairs: Annotated[int, Interval(ge=0), Doc("held-out pairs, labelled by the reward alone")] = 256

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs drawn at this seed.

        Raises:
            xpo_bench.errors.DataError: too few pairs to contain every completion.
        """
        world = self._world()
        rng = stream(seed, self.name, "data")
        biased = Annotators(length_bias=self.length_bias, length=standardised(world))
        return Dataset(
            train=sample_pairs(world, world.actions, self.pairs, rng, annotators=biased),
            heldout=sample_pairs(world, world.actions, self.heldout_pairs, rng, cover=False),
            rows=self.pairs + self.heldout_pairs,
            world=world,
        )

    def _world(self) -> World:
        """A Bradley–Terry world with lengths; prompt i is the same for any number of prompts."""
        world = bradley_terry_world(self.name, self.version, self.prompts, self.actions)
        lengths = {}
        for i, (prompt, texts) in enumerate(world.actions.items()):
            rng = world_stream(self.name, self.version, i, self.actions, "tokens", self.longest)
            drawn = rng.integers(1, self.longest + 1, self.actions)
            if drawn.min() == drawn.max():  # a prompt of one length has no bias to speak of
                drawn[0] = 1 if drawn[0] > 1 else self.longest
            lengths[prompt] = dict(zip(texts, drawn.tolist(), strict=True))
        return replace(world, lengths=lengths)


def standardised(world: World) -> dict[str, dict[str, float]]:
    """ℓ: the number of tokens less its mean over the completions of the prompt, in standard deviations."""
    out = {}
    for prompt, lengths in world.lengths.items():
        n = np.array(list(lengths.values()), dtype=np.float64)
        out[prompt] = dict(zip(lengths, ((n - n.mean()) / n.std()).tolist(), strict=True))
    return out


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [LengthBias]
