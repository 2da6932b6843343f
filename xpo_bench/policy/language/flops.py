"""Floating-point operations of a causal transformer, counted from what was fed to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xpo_bench.policy.language.model_facts import stated, text_body, text_config, vocabulary_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

BACKWARD = 2
"""A backward pass costs two forward passes: one for the inputs' gradients, one for the weights'."""


@dataclass(frozen=True)
class ModelShape:
    """What a forward pass costs, in floating-point operations (a multiply-add is two).

    Args:
        per_token: through the body's matrices. per_context: per token and token that it attends to.
        per_logits: through the output head, per position.

    Source: Kaplan et al. 2020, table 1; Chowdhery et al. 2022, appendix B (attention).
    """

    per_token: float
    per_context: float
    per_logits: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelShape:
        """The shape of a Hugging Face causal model; lookups in embedding tables cost nothing, nor do towers
        that see.

        A model without heads of attention pays nothing per context. Of experts, as many count as a token is
        sent to.
        """
        config, body = text_config(model.config), text_body(model)
        head = getattr(model.get_output_embeddings(), "weight", None)
        tables = {id(m.weight) for m in body.modules() if isinstance(m, torch.nn.Embedding)}
        matrices = {
            name: p
            for name, p in body.named_parameters()
            if p.dim() > 1 and id(p) not in tables and p is not head
        }
        heads = _first(config, "decoder_attention_heads", "num_attention_heads", "n_head", "num_heads")
        hidden = _first(config, "hidden_size", "d_model", "n_embd")
        layers = _first(config, "decoder_layers", "num_hidden_layers", "n_layer")
        width = _first(config, "head_dim") or (hidden / heads if heads else 0)
        chosen = _first(
            config, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts"
        )
        active = sum(p.numel() * _active(name, p, chosen) for name, p in matrices.items())
        logits = head.numel() if head is not None else vocabulary_of(model)[0] * hidden
        # a number of a matrix is one multiply-add; q·k and weight·v are `width` of them per head, each
        return cls(2.0 * active, 4.0 * layers * heads * width, 2.0 * logits)

    def forward(self, rows: Sequence[tuple[int, int]], positions: int) -> float:
        """One forward pass.

        Args:
            rows: (first, last) position that is computed of each sequence, last excluded: a cache skips the
                first ones.
            positions: how many of them go through the output head.
        """
        tokens = sum(last - first for first, last in rows)
        # the token at position t attends to t + 1 tokens: Σ over first ≤ t < last
        attended = sum(last * (last + 1) - first * (first + 1) for first, last in rows) / 2
        return self.per_token * tokens + self.per_context * attended + self.per_logits * positions


@dataclass
class Tally:
    """What went through a model so far.

    Args:
        tokens: in scoring, sampling and KL, with and without a graph; padding excluded, equal rows and shared
            prompts of one call counted once. The last token of a row predicts nothing and is not fed.
        flops: floating-point operations of those tokens, forward and backward; recomputation is not counted.
    """

    tokens: int = 0
    flops: float = 0.0

    def add(self, tokens: int, flops: float) -> None:
        """Count what went through."""
        self.tokens += tokens
        self.flops += flops

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing for a while."""
        kept = self.tokens, self.flops
        try:
            yield
        finally:
            self.tokens, self.flops = kept


def _first(config: PretrainedConfig, *names: str) -> float:
    """The first of these numbers that a configuration states; the mean where it states one per layer, 0 where
    none.
    """
    for name in names:
        value = stated(config, name)
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, int) for v in value):
            value = sum(value) / len(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return float(value)
    return 0.0


def _active(name: str, parameter: torch.nn.Parameter, chosen: float) -> float:
    """The fraction of a matrix that a token meets: all of it, or its experts' where they are stacked in one
    tensor.
    """
    stacked = "experts" in name and parameter.dim() == 3
    return min(1.0, chosen / int(parameter.shape[0])) if stacked and chosen else 1.0
