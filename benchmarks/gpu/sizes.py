"""What is measured: random models and random texts, at the sizes of a GPU and of a rehearsal."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Protocol

from xpo_bench import ModelSpec, Pair


class Note(Protocol):
    """Keeps a row of a part's table."""

    def __call__(self, **row: object) -> None: ...


def llama(hidden: int, layers: int, heads: int, inner: int, vocabulary: int, context: int) -> ModelSpec:
    """A Llama of random weights; its tokens are bytes, whatever the size of its vocabulary."""
    return ModelSpec(
        name="tiny",
        tokenizer="bytes",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        context=context,
    )


@dataclass(frozen=True)
class Sizes:
    """What a part takes.

    Args:
        models: by their size in words, with pairs of a step. prompt, completion: shortest and longest text,
            tokens. steps: of a measurement, timed. rounds: of contenders that take turns.
        swept: the model of the sweeps. runs: how many adapters. copies: of ensembles.
        square: side of the matrices whose product says what the device can do.
    """

    models: Mapping[str, tuple[ModelSpec, int]]
    prompt: tuple[int, int]
    completion: tuple[int, int]
    steps: int
    rounds: int
    swept: ModelSpec
    runs: tuple[int, ...]
    copies: tuple[int, ...]
    square: int

    def pairs(self, count: int) -> tuple[Pair, ...]:
        """Pairs of random letters, always the same."""
        rng = random.Random("pairs")

        def text(least: int, most: int) -> str:
            return "".join(rng.choices(ascii_lowercase, k=rng.randint(least, most)))

        return tuple(
            Pair(text(*self.prompt), text(*self.completion), text(*self.completion)) for _ in range(count)
        )


@dataclass(frozen=True)
class Place:
    """Where a part runs, what it takes, and who keeps its rows."""

    device: str
    sizes: Sizes
    note: Note


FULL = Sizes(
    models={
        "0.1 B": (llama(768, 12, 12, 2048, 32_000, 1024), 32),
        "1 B": (llama(2048, 16, 32, 8192, 32_000, 1024), 16),
    },
    prompt=(128, 384),
    completion=(32, 224),
    steps=12,
    rounds=3,
    swept=llama(576, 30, 9, 1536, 49_152, 512),
    runs=(1, 4, 16, 64),
    copies=(16, 64),
    square=8192,
)
SMALL = Sizes(
    models={"small": (llama(64, 2, 4, 128, 300, 96), 4)},
    prompt=(8, 32),
    completion=(4, 16),
    steps=2,
    rounds=1,
    swept=llama(64, 2, 4, 128, 300, 96),
    runs=(1, 2),
    copies=(2,),
    square=256,
)
