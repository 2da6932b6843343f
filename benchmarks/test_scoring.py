"""What a batch of pairs costs, forward and backward: prompts shared and packed, shared, a row each.

    pytest benchmarks/test_scoring.py

A Llama of four layers and width 128, eight prompts of 96 tokens with two completions of 24 to 48 each, one
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from xpo_bench import Completion, ModelSpec
from xpo_bench.policy.language.causal_lm import CausalLM

PROMPTS, PROMPT, SHORTEST, LONGEST = 8, 96, 24, 48


@cache
def model(rows: str) -> CausalLM:
    """The model, told how its rows may be laid out: `packed`, `padded` or `separate`."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=259,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    with_tokenizer = CausalLM.load(ModelSpec(name="tiny"), init_seed=0)
    policy = CausalLM(transformers.LlamaForCausalLM(config), with_tokenizer.tokenizer, ModelSpec(name="tiny"))
    if rows != "packed":
        policy.scorer.packed = False
        policy.model.set_attn_implementation("sdpa")
        policy.scorer.masked_cost = policy.scorer.shape.per_context / policy.scorer.shape.per_token
    if rows == "separate":
        policy.scorer.reach = 0
    return policy


def completions() -> list[Completion]:
    """The same texts in every layout."""
    draw = torch.Generator().manual_seed(0)

    def text(length: int) -> str:
        return "".join(chr(97 + int(c)) for c in torch.randint(26, (length,), generator=draw))

    lengths = torch.randint(SHORTEST, LONGEST + 1, (PROMPTS, 2), generator=draw).tolist()
    prompts = [text(PROMPT) for _ in range(PROMPTS)]
    return [Completion(prompt, text(n)) for prompt, pair in zip(prompts, lengths, strict=True) for n in pair]


@pytest.mark.parametrize("rows", ["packed", "padded", "separate"])
def test_a_batch(benchmark: Callable[..., Any], rows: str) -> None:
    torch.set_num_threads(1)
    policy = model(rows)
    encoded = policy.encode(completions())
    benchmark.extra_info["rows"] = rows  # type: ignore[attr-defined]

    def once() -> None:
        scores = policy.score({"all": (encoded, None)}, grad=True)["all"]
        torch.autograd.grad(scores.sum.sum(), policy.parameters())

    benchmark(once)
