"""What the contenders are timed on: a model at its first weights, and pairs of token ids."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from xpo_bench import ModelSpec
from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.data.labels import decided
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.weights import State
from xpo_bench_plugins.tasks.ukp import Ukp

LENGTHS = {"long-prompt": (128, 64), "long-completion": (32, 128)}
"""Tokens of the prompt and of each completion, BOS and EOS included, where the text is random."""

CASES = (*LENGTHS, "ukp")

Batches = Sequence[Sequence[Pair]]


@dataclass(frozen=True)
class Case:
    """A model at its first weights, and the pairs to draw from.

    Args:
        policy: in the dtype that the contenders compute in. initial: its weights. fresh: a copy of the
            Hugging Face model that stays untrained. left_out: pairs that do not fit the context.
    """

    name: str
    policy: CausalLM
    initial: State
    fresh: Any
    pairs: tuple[Pair, ...]
    left_out: int = 0

    def rows(self, pair: Pair) -> tuple[Row, Row]:
        """The token ids of chosen and rejected, each behind the prompt."""
        encoded = self.policy.encode(
            [Completion(pair.prompt, pair.chosen), Completion(pair.prompt, pair.rejected)]
        )
        chosen, rejected = encoded.row(0), encoded.row(1)
        assert chosen is not None
        assert rejected is not None
        return chosen, rejected


def random_text(name: str, pairs: int, dtype: str = "float32") -> Case:
    """A small Llama with random weights, and pairs of random letters of exactly the lengths of the case."""
    prompt, completion = LENGTHS[name]
    spec = ModelSpec(name="tiny", hidden_size=256, intermediate_size=512, layers=4, heads=4, context=512)
    policy = CausalLM.load(spec, init_seed=0, dtype=dtype)
    rng = random.Random(name)

    def text(tokens: int) -> str:
        return "".join(
            rng.choices(ascii_lowercase, k=tokens - 1)
        )  # a letter is a token; BOS or EOS is one more

    drawn = tuple(Pair(text(prompt), text(completion), text(completion)) for _ in range(pairs))
    case = Case(name, policy, policy.snapshot(), copy.deepcopy(policy.model), drawn)
    for row in (row for pair in drawn for row in case.rows(pair)):
        require((row.start, row.length) == (prompt, completion), f"{name}: {row.start} + {row.length} tokens")
    return case


def crowd_votes(model: str, dtype: str = "float32") -> Case:
    """A pretrained model and the pairs of `ukp` that its context holds, ties left out."""
    policy = CausalLM.load(ModelSpec(name=model), init_seed=0, dtype=dtype)
    train = Ukp().data(0, policy.spec).train
    pairs = [pair for pair in (train[i] for i in decided(train)) if isinstance(pair, Pair)]
    items = [Completion(pair.prompt, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    fits = (policy.encode(items, "drop").item.reshape(-1, 2) >= 0).all(1).tolist()
    kept = tuple(pair for pair, fit in zip(pairs, fits, strict=True) if fit)
    return Case("ukp", policy, policy.snapshot(), copy.deepcopy(policy.model), kept, len(pairs) - len(kept))


def require(holds: bool, what: str) -> None:
    """End the program where the contenders do not do the same work."""
    if not holds:
        raise SystemExit(f"peers: not the same work: {what}")
