"""What a Hugging Face model and its configuration say of themselves: parts, sizes, end tokens, context."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""Names under which configurations state the longest row."""


def body_of(model: PreTrainedModel) -> torch.nn.Module | None:
    """The model without its head; None where it does not say."""
    body: torch.nn.Module | None = getattr(model, "base_model", None)
    return None if body is model else body


def text_body(model: PreTrainedModel) -> torch.nn.Module:
    """The part of a model that reads text: not the tower that a multimodal one sees with."""
    found = None
    with contextlib.suppress(AttributeError, NotImplementedError, TypeError):
        found = model.get_decoder()
    body = body_of(model)
    if (
        isinstance(found, torch.nn.Module)
        and found is not model
        and next(iter(found.parameters()), None) is not None
    ):
        return found
    inner: torch.nn.Module = getattr(body, "language_model", None) or body or model
    return inner


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration that is about text."""
    try:
        return config.get_text_config(decoder=True)
    except (AttributeError, TypeError, ValueError):
        return config


def stated(config: PretrainedConfig, name: str) -> Any:
    """The value of a field of a configuration: a list with one per layer where layers differ, None where
    there is none.
    """
    try:
        return getattr(config, name, None)
    except RuntimeError:  # transformers' AmbiguousGlobalPerLayerAttributeError, which older versions lack
        layers = range(int(getattr(config, "num_hidden_layers", 0) or 0))
        return [getattr(config.per_layer_config[layer], name, None) for layer in layers]


def vocabulary_of(model: PreTrainedModel) -> tuple[int, int]:
    """Logits of a position, and ids that the input embedding has a row for."""
    head = model.get_output_embeddings()
    table = None
    with contextlib.suppress(AttributeError, NotImplementedError, TypeError):
        table = model.get_input_embeddings()
    ids = int(stated(text_config(model.config), "vocab_size") or 0)
    weights = (getattr(part, "weight", None) for part in (head, table))
    logits, rows = (0 if weight is None else int(weight.shape[0]) for weight in weights)
    return logits or ids or rows, rows or ids


def end_ids(config: PretrainedConfig, generation: object) -> list[int]:
    """Ids at which a model's generation settings, or else its configuration, end a text."""
    found = getattr(generation, "eos_token_id", None)
    if found is None:
        found = getattr(config, "eos_token_id", None)
    several = found if isinstance(found, list | tuple) else [found]
    return [int(i) for i in several if isinstance(i, int) and i >= 0]


def context_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """The longest row of a model in tokens: from its configuration, else its tokenizer, else 2,048."""
    text = text_config(config)
    for field in CONTEXTS:
        value = getattr(text, field, None)
        if isinstance(value, int) and value > 0:
            return value
    value = getattr(tokenizer, "model_max_length", None)
    # tokenizers that know no limit say 10^30
    return int(value) if value is not None and value < 10**6 else 2048
