"""Small random models of several architectures, over token ids."""

from __future__ import annotations

from typing import Any

import torch

from xpo_bench.contract.settings import ModelSpec

VOCAB = 32
SPEC = ModelSpec(name="tiny", tokenizer="ids", vocab_size=VOCAB, eos=False)


def build(family: str) -> Any:
    """A small random model with weights large enough to matter."""
    import transformers as t

    common = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    neox = {k: v for k, v in small.items() if k != "num_key_value_heads"}
    models = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common, **small)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**common, **small)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**common, **small, head_dim=8)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**common, **small, sliding_window=8)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
        ),
        "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**common, **neox)),
        "gemma2": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(**common, **small, head_dim=8, sliding_window=8)
        ),
        "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**common, **small)),
        "bloom": lambda: t.BloomForCausalLM(
            t.BloomConfig(**common, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.3)
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models[family]()
