"""The built-in `tiny` model: a randomly initialised Llama."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.tokenizers import ByteTokenizer, IdTokenizer, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def tiny_tokenizer(spec: ModelSpec) -> Tokenizer:
    """Bytes unless the specification asks for token ids.

    Raises:
        UsageError: the vocabulary is too small for bytes.
    """
    if spec.tokenizer == "ids":
        return IdTokenizer(spec.vocab_size)
    tokenizer = ByteTokenizer()
    if spec.vocab_size <= tokenizer.pad:
        raise UsageError(
            f"model tiny: vocab_size is {spec.vocab_size}; "
            f"the byte tokenizer needs at least {tokenizer.pad + 1}"
        )
    return tokenizer


def tiny_model(spec: ModelSpec, init_seed: int) -> PreTrainedModel:
    """A float32 Llama on the CPU, its weights a function of `spec` and `init_seed` alone.

    The global generator is neither read nor advanced.

    Raises:
        UsageError: the width is not an even multiple of the number of heads: rotary positions turn pairs of
            numbers.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if spec.hidden_size % (2 * spec.heads):
        raise UsageError(
            f"model tiny: hidden_size {spec.hidden_size} is not an even multiple of {spec.heads} heads"
        )
    config = LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.context,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(init_seed)
        return LlamaForCausalLM(config).float()
