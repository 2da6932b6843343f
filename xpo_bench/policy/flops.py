"""Floating-point operations of a causal transformer, counted from what was fed to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    def of(cls, model: Any) -> ModelShape:
        """The shape of a Hugging Face causal model; lookups in embedding tables cost nothing."""
        import torch

        head = model.get_output_embeddings().weight
        tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
        body = sum(p.numel() for p in model.parameters() if p.dim() > 1 and id(p) not in tables and p is not head)
        config = model.config
        width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        attention = config.num_hidden_layers * config.num_attention_heads * width
        return cls(2.0 * body, 4.0 * attention, 2.0 * head.numel())

    def forward(self, rows: Sequence[tuple[int, int]], positions: int) -> float:
        """One forward pass.

        Args:
            rows: (first, last) position that is computed of each sequence, last excluded: a cache skips the first ones.
            positions: how many of them go through the output head.
        """
        tokens = sum(last - first for first, last in rows)
        attended = sum(last * (last + 1) - first * (first + 1) for first, last in rows) / 2
        return self.per_token * tokens + self.per_context * attended + self.per_logits * positions
