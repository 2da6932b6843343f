"""tokens: a language model small enough that its whole distribution is known.

Completions are all strings of a few tokens from a vocabulary of eight, so KL both ways, entropy, regret, the
frontier and the gold reward are sums over all of them, and nothing is sampled. The reward of a completion is
a number per prompt, position and token plus one per pair of neighbours, which is the same for every prompt:
what is learnt on one completion carries over to others, which it cannot in a tabular policy. Preferences
follow Bradley and Terry.

What to expect: `regret` falls but does not vanish, since the pairs show few of the completions and the
network fills in the others; `frontier_gap` tells how well. Against `--model tabular`, which starts from the
uniform distribution and knows only the completions it has seen, the gap is what the network's generalisation
is worth.

Source: this suite; the network's view of the worlds of Rafailov et al. (2023), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Annotated, ClassVar

from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import sample_pairs, world_stream

VOCABULARY = 8


@dataclass(frozen=True)
class Tokens(Task):
    """All completions of a few tokens, on a network, exactly."""

    name: ClassVar[str] = "tokens"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = "lengths: all completions have the same number of tokens"
    model: ClassVar[ModelSpec] = ModelSpec(
        name="tiny",
        tokenizer="ids",
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        context=16,
        eos=False,
    )
    lm_budget: ClassVar[Budget] = Budget(
        steps=200,
        batch_size=64,
        optimizer="adamw",
        lr=1e-3,
        warmup=0.1,
        clip=1.0,
        dtype="float32",
        eval_pairs=64,
    )
    budget: ClassVar[Budget] = lm_budget

    prompts: Annotated[int, Interval(ge=1, le=VOCABULARY), Doc("prompts of the world, one token each")] = 4
    length: Annotated[
        int, Interval(ge=1, le=4), Doc("tokens of a completion; 4 are 4,096 completions a prompt")
    ] = 3
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 1024
    heldout_pairs: Annotated[int, Gt(0), Doc("held-out pairs, on the same prompts")] = 256

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs of uniformly drawn completions labelled at this seed."""
        world = self._world()
        rng = stream(seed, self.name, "data")
        return Dataset(
            train=sample_pairs(world, world.actions, self.pairs, rng, cover=False),
            heldout=sample_pairs(world, world.actions, self.heldout_pairs, rng, cover=False),
            rows=self.pairs + self.heldout_pairs,
            world=world,
        )

    def _world(self) -> World:
        texts = tuple(" ".join(map(str, ids)) for ids in product(range(VOCABULARY), repeat=self.length))
        neighbours = world_stream(self.name, self.version, "neighbours").standard_normal(
            (VOCABULARY, VOCABULARY)
        )
        reward = {}
        for x in range(self.prompts):
            single = world_stream(self.name, self.version, "tokens", x).standard_normal((4, VOCABULARY))
            reward[str(x)] = {
                text: float(
                    sum(single[t, i] for t, i in enumerate(ids))
                    + sum(neighbours[i, j] for i, j in pairwise(ids))
                )
                for text in texts
                for ids in [tuple(map(int, text.split()))]
            }
        return World(actions=dict.fromkeys(reward, texts), reward=reward, exhaustive=True)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Tokens]
