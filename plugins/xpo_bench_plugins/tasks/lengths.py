"""lengths: completions of 1 to 8 tokens, each with its own probability, and labels that favour longer ones.

A completion goes on for as long as it likes and ends with a yes or a no: "yes", "no", "go yes", "go no", ...,
up to seven times "go". Four prompts have these sixteen completions each. The tabular policy has a logit for
every token after those before it (`World.tokens`), so that a loss of some tokens, of a mean, of the tail or
of what two completions share moves other things than one of sums. Under the reference a completion
goes on with .7 and says yes with a probability of the prompt's own; the reward is 2 for yes, plus a normal
number of deviation .5 for each completion, and knows nothing of length. Training labels follow

    P(a ≻ b | x) = σ(r(x, a) − r(x, b) + length_bias · (ℓ(a) − ℓ(b)))

with ℓ the number of tokens, standardised over the completions. Held-out pairs are labelled by the reward
alone; KL, expected reward, expected length and the reward–KL frontier are exact.

What to expect: what fits the labels grows longer: `expected_length`, 3.14 under the reference, ends near 7
for losses of sums, which learn the bias as if it were reward, and half of what they attain without it is
lost. A mean per token (`simpo`) moves long completions less, and keeps more reward. Without a bias the same
losses end at 1.5 to 3 tokens.

It stands beside `length_bias`, whose completions spread one log-probability evenly over their tokens: there
sums and means differ, here also the place in a completion where a loss acts.

Source: this suite; after Park et al. (2024) and Singhal et al. (2023) for the bias, Meng et al. (2024),
arXiv 2405.14734, for means per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Interval
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import Annotators, sample_pairs, world_stream

GOES_ON = 0.7
"""Probability under the reference that a completion goes on where it may."""
YES, SPREAD = 2.0, 0.5
"""Reward of a yes, and the standard deviation of what is each completion's own."""


@dataclass(frozen=True)
class Lengths(Task):
    """Exact world of token trees with length-biased labels."""

    name: ClassVar[str] = "lengths"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = (
        "what a network shares between contexts: every prefix has probabilities of its own"
    )
    budget: ClassVar[Budget] = Budget(steps=1000, batch_size=256, lr=0.01)

    prompts: Annotated[int, Interval(ge=1, le=1000), Doc("prompts of the world")] = 4
    longest: Annotated[int, Interval(ge=2, le=32), Doc("tokens of a completion at most; the least is 1")] = 8
    length_bias: Annotated[
        float, Ge(0), Doc("log-odds that training labels give a standard deviation of length")
    ] = 2.0
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 1024
    heldout_pairs: Annotated[int, Interval(ge=0), Doc("held-out pairs, labelled by the reward alone")] = 256

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs drawn at this seed; `p_chosen` is the true probability.

        Raises:
            xpo_bench.errors.DataError: too few pairs to contain every completion.
        """
        world = token_world(self.version, self.prompts, self.longest)
        rng = stream(seed, self.name, "data")
        biased = Annotators(length_bias=self.length_bias, length=standardised(world))
        return Dataset(
            train=sample_pairs(world, world.actions, self.pairs, rng, annotators=biased),
            heldout=sample_pairs(world, world.actions, self.heldout_pairs, rng, cover=False),
            rows=self.pairs + self.heldout_pairs,
            world=world,
        )


@lru_cache(maxsize=8)
def token_world(version: str, prompts: int, longest: int) -> World:
    """Prompts with a yes and a no of every length; prompt i is the same for any number of prompts."""
    texts = tuple(" ".join(["go"] * n + [end]) for n in range(longest) for end in ("yes", "no"))
    reference, reward = {}, {}
    for i in range(prompts):
        rng = world_stream(Lengths.name, version, i, longest)
        yes, own = rng.uniform(0.3, 0.7), rng.normal(0.0, SPREAD, len(texts)).tolist()
        # the last place offers no way on
        stops = [GOES_ON**n * (1 - GOES_ON if n < longest - 1 else 1.0) for n in range(longest)]
        p = [stop * q for stop in stops for q in (yes, 1 - yes)]
        reference[f"x{i}"] = dict(zip(texts, p, strict=True))
        reward[f"x{i}"] = {
            text: YES * text.endswith("yes") + extra for text, extra in zip(texts, own, strict=True)
        }
    return World(actions=dict.fromkeys(reward, texts), reference=reference, reward=reward, tokens=True)


def standardised(world: World) -> dict[str, dict[str, float]]:
    """ℓ: the number of tokens less its mean over the completions of the prompt, in standard deviations."""
    out = {}
    for prompt, texts in world.actions.items():
        n = np.array([len(text.split()) for text in texts], dtype=np.float64)
        out[prompt] = dict(zip(texts, ((n - n.mean()) / n.std()).tolist(), strict=True))
    return out


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Lengths]
