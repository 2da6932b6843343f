"""One language model as a function of token ids: features at positions, and logits of features.

It knows how a Hugging Face model is called and in which precision, and nothing of what is right for the model
at hand: that is found out by `probes`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xpo_bench.policy.language import attention, flex
from xpo_bench.policy.language.last_layer import LastLayer
from xpo_bench.policy.language.layout import Block, lay_out
from xpo_bench.policy.language.rope import LengthDependence
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.policy.language.tokenize import Row

KERNELS = {"cpu": attention, "cuda": flex}
"""What computes the attention of packed rows, by device type."""

CACHES = ("past_key_values", "cache_params")
"""What models call the state that lets them go on by one token."""


class Network:
    """A model on its device.

    Args:
        model: a Hugging Face causal language model in evaluation mode. dtype: `float32`, `bfloat16` or
            `float64`.
        selected: features are hidden states of the body and logits those of the head, else features are the
            logits.

    Attributes:
        vocabulary: logits of a position. embeddings: ids that the model knows.
        takes: names of the arguments that the model's forward pass knows.
        cache_name: what it calls its cache, None where it has none that can be handed back to it.
        probing: compute in full precision, so that what two ways of computing differ by is not rounding.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        dtype: str,
        *,
        selected: bool,
        sharding: Sharding | None = None,
    ) -> None:
        self.model, self.device, self.dtype, self.sharding = model, device, dtype, sharding
        self.body = body_of(model)
        self.head = model.get_output_embeddings()
        self.selected = selected
        self.called = self.body if selected else model
        self.takes = frozenset(inspect.signature(self.called.forward).parameters)
        self.cache_name = next((name for name in CACHES if name in self.takes), None)
        self.kernel: Any = KERNELS.get(device.type, attention)
        self.last_layer = LastLayer(text_body(model))
        self.positions = LengthDependence.of(model)
        self.vocabulary, self.embeddings = vocabulary_of(model)
        self.probing = False
        self._weight = next(iter(model.parameters()))

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of log-probabilities: float32, float64 for float64 models."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def completion_features(
        self,
        rows: Sequence[Row],
        parts: Sequence[Block],
        *,
        packed: bool = False,
        whole: bool = False,
        trims: bool = False,
        poison: bool = False,
    ) -> tuple[Tensor, Tensor, int]:
        """What predicts each completion token, by one forward pass.

        Args:
            rows: all on one side of every length at which position encodings change (`positions.regime`).
            parts: blocks that together hold every row once. packed: one behind the other in one row.
            whole: feed the last token of each row too, which predicts nothing.
            trims: compute the last layer at completion positions alone. poison: with NaN elsewhere in place
                of 0.

        Returns:
            Features of shape (K, width), input of `logits`; targets of shape (K,), K the completion tokens of
            all rows, row after row; and how many tokens were fed.
        """
        whole = whole or any(self.positions.regime(len(row.ids)) for row in rows)
        plan = lay_out(rows, parts, self.device, self.kernel.FILL if packed else 0, whole=whole)
        told: dict[str, Any] = {}
        if plan.visible is not None:
            told = {"position_ids": plan.positions, "attention_mask": self._mask(plan.visible)}
        elif plan.packing is not None:  # a mask of four dimensions is taken as it is, and read by nobody
            packing = self.kernel.prepare(plan.packing, self.device)
            told = {
                "position_ids": plan.positions,
                "attention_mask": plan.ids.new_empty(1, 1, 0, 0),
                "packing": packing,
            }
        with self.last_layer.only(plan.needed, poison=poison) if trims else contextlib.nullcontext():
            features = self.features(input_ids=plan.ids, **told)[0]
        return features.flatten(0, 1).index_select(0, plan.at), plan.targets, plan.fed

    def _mask(self, visible: Tensor) -> Tensor:
        """Numbers to add to the scores of attention, in the dtype that they are computed in.

        Models that compute their attention themselves would add booleans too, which hides nothing.
        """
        dtype = torch.bfloat16 if self._half else self._weight.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
            ~visible, torch.finfo(dtype).min
        )

    def features(self, *, use_cache: bool = False, **inputs: Any) -> tuple[Tensor, Any]:
        """Run the model: features of shape `(B, L, width)` for `logits`, and its cache if one was asked for."""
        self.positions.forget()
        if "use_cache" in self.takes:
            inputs["use_cache"] = use_cache
        with self.autocast():
            out = self.called(**inputs)
        return (out.last_hidden_state if self.selected else out.logits), getattr(
            out, self.cache_name or "", None
        )

    @property
    def _half(self) -> bool:
        return self.dtype == "bfloat16" and not self.probing

    def autocast(self) -> torch.autocast:
        """The precision of the model's body."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._half)

    def logits(self, features: Tensor) -> Tensor:
        """Logits of features, shape `(..., vocabulary)`, at least float32 whatever the body computes in."""
        if not self.selected:
            return features.double() if self.dtype == "float64" else features.float()
        with torch.autocast(self.device.type, enabled=False):
            logits: Tensor = self.head(features.to(self.head.weight.dtype))
            return logits

    def agreed(self, values: Tensor) -> Tensor:
        """What all processes that share the layers go on with: the first one's values."""
        return self.sharding.of_first(values) if self.sharding else values


def body_of(model: Any) -> Any:
    """The model without its head; None where it does not say."""
    body = getattr(model, "base_model", None)
    return None if body is model else body


def text_body(model: Any) -> Any:
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
    return getattr(body, "language_model", None) or body or model


def text_config(config: Any) -> Any:
    """The part of a configuration that is about text."""
    try:
        return config.get_text_config(decoder=True)
    except (AttributeError, TypeError, ValueError):
        return config


def stated(config: Any, name: str) -> Any:
    """What a configuration states under a name; a list with the value of each layer where these differ, None
    where nothing.
    """
    try:
        return getattr(config, name, None)
    except (
        Exception
    ):  # transformers refuses to answer for all layers at once, by a class that older versions lack
        layers = range(int(getattr(config, "num_hidden_layers", 0) or 0))
        return [getattr(config.per_layer_config[layer], name, None) for layer in layers]


def vocabulary_of(model: Any) -> tuple[int, int]:
    """Logits of a position, and ids that the input embedding has a row for."""
    head: Any = model.get_output_embeddings()
    table: Any = None
    with contextlib.suppress(AttributeError, NotImplementedError, TypeError):
        table = model.get_input_embeddings()
    ids = int(stated(text_config(model.config), "vocab_size") or 0)
    rows = [
        int(part.weight.shape[0]) if getattr(part, "weight", None) is not None else 0
        for part in (head, table)
    ]
    return rows[0] or ids or rows[1], rows[1] or ids
