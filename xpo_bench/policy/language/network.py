"""One language model as a function of token ids: features at positions, and logits of features.

It knows how a Hugging Face model is called and in which precision, and nothing of what is right for the model
at hand: that is found out by `probes`.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xpo_bench.policy.language import attention, flex
from xpo_bench.policy.language.last_layer import LastLayer
from xpo_bench.policy.language.layout import Block, Layout, lay_out
from xpo_bench.policy.language.model_facts import text_body, vocabulary_of
from xpo_bench.policy.language.rope import LengthDependence
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KERNELS: dict[str, ModuleType] = {"cpu": attention, "cuda": flex}
"""What computes the attention of packed rows, by device type; modules with `FILL`, `use` and `prepare`."""

KEPT, KEPT_TOKENS = 8, 512
"""Layouts that are kept, and the largest of them: a forward pass of more tokens takes far longer than its
layout.
"""

CACHES = ("past_key_values", "cache_params")
"""What models call the state that lets them go on by one token."""


def prepared(
    model: PreTrainedModel, device: torch.device, dtype: str, sharding: Sharding | None
) -> PreTrainedModel:
    """The model on its device, without dropout and without a cache unless one is asked for.

    Weights are float32 under `bfloat16` too: small updates would be lost in eight bits of mantissa.
    """
    number = torch.float64 if dtype == "float64" else torch.float32
    model = model.to(device, number) if sharding is None else sharding.shard(model.to(number), device)
    model = model.eval()
    model.config.use_cache = False
    return model


class Network:
    """A model on its device.

    Args:
        model: a Hugging Face causal language model, `prepared`. dtype: `float32`, `bfloat16` or `float64`.
        selected: features are hidden states of the body and logits those of the head, else features are the
            logits.

    Attributes:
        vocabulary: logits of a position. embeddings: ids that the model knows.
        takes: names of the arguments that the model's forward pass knows.
        cache_name: what it calls its cache, None where it has none that can be handed back to it.
        weights: its trained parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        dtype: str,
        *,
        selected: bool,
        sharding: Sharding | None = None,
    ) -> None:
        self.model, self.device, self.dtype, self.sharding = model, device, dtype, sharding
        self.selected = selected
        self.called: PreTrainedModel = model.base_model if selected else model
        self.takes = frozenset(inspect.signature(self.called.forward).parameters)
        self.cache_name = next((name for name in CACHES if name in self.takes), None)
        self.kernel = KERNELS.get(device.type, attention)
        self.last_layer = LastLayer(text_body(model))
        self.positions = LengthDependence.of(model)
        self.vocabulary, self.embeddings = vocabulary_of(model)
        self.weights = Weights(model, sharding)
        self.head: torch.nn.Linear = model.get_output_embeddings()
        self._exact = False
        self._layouts: dict[Any, tuple[Layout, dict[str, Any]]] = {}

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of log-probabilities: float32, float64 for float64 models."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    @contextlib.contextmanager
    def exactly(self) -> Iterator[None]:
        """Compute in full precision for a while: what two ways of computing differ by is then no rounding."""
        self._exact = True
        try:
            yield
        finally:
            self._exact = False

    def completion_features(
        self,
        rows: Sequence[Row],
        parts: Sequence[Block],
        *,
        packed: bool = False,
        whole: bool = False,
        trims: bool = False,
        poison: bool = False,
        shares: int = 1,
    ) -> tuple[Tensor, Tensor, int]:
        """What predicts each completion token, by one forward pass.

        Args:
            rows: all on one side of every length at which position encodings change (`positions.regime`).
            parts: blocks that together hold every row once. packed: one behind the other in one row.
            whole: feed the last token of each row too, which predicts nothing.
            trims: compute the last layer at completion positions alone. poison: with NaN elsewhere in place
                of 0.
            shares: equal parts of the whole, one behind the other, as in `lay_out`.

        Returns:
            Features of shape (K, width), input of `logits`; targets of shape (K,), K the completion tokens of
            all rows, row after row; and how many tokens were fed.
        """
        # beyond `first` the encoding depends on the length of the row, its last token included
        whole = whole or any(self.positions.regime(len(row.ids)) for row in rows)
        fill = self.kernel.FILL if packed else 0
        plan, told = self._laid_out(tuple(rows), tuple(parts), fill, whole, shares)
        # a short packed row may need all that it is filled up to
        trims = trims and (poison or len(plan.needed) < plan.ids.numel())
        with self.last_layer.only(plan.needed, poison=poison) if trims else contextlib.nullcontext():
            features = self.features(input_ids=plan.ids, **told)[0]
        return features.flatten(0, 1).index_select(0, plan.at), plan.targets, plan.fed

    def _laid_out(
        self, rows: tuple[Row, ...], parts: tuple[Block, ...], fill: int, whole: bool, shares: int
    ) -> tuple[Layout, dict[str, Any]]:
        """A layout, and what a model has to be told of it. A few small ones are kept: where every step takes
        the same rows, what is made of them is the same.
        """
        key = rows, parts, fill, whole, shares, self._half
        known = self._layouts.pop(key, None)
        if known is None:
            plan = lay_out(rows, parts, self.device, fill, whole=whole, shares=shares)
            known = plan, self._told(plan)
        if known[0].ids.numel() <= KEPT_TOKENS:
            self._layouts[key] = known  # the latest last
            if len(self._layouts) > KEPT:
                del self._layouts[next(iter(self._layouts))]
        return known

    def _told(self, plan: Layout) -> dict[str, Any]:
        """What a model has to be told of a layout beside its ids: nothing where no prompt is shared, and
        positions 0, 1, 2, … and the model's own causal mask are right.
        """
        if plan.visible is not None:
            return {"position_ids": plan.positions, "attention_mask": self._mask(plan.visible)}
        if plan.packing is not None:
            packing = self.kernel.prepare(plan.packing, self.device)
            # transformers takes a mask of four dimensions as it is, and builds none of its own; an empty one
            # costs nothing, and the kernel reads `packing` instead
            nothing = plan.ids.new_empty(1, 1, 0, 0)
            return {"position_ids": plan.positions, "attention_mask": nothing, "packing": packing}
        return {}

    def _mask(self, visible: Tensor) -> Tensor:
        """Numbers to add to the scores of attention, in the dtype that they are computed in.

        Models that compute their attention themselves would add booleans too, which hides nothing. The least
        finite number takes the place of −∞: a row of −∞ alone has a softmax of NaN.
        """
        dtype = torch.bfloat16 if self._half else next(iter(self.model.parameters())).dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
            ~visible, torch.finfo(dtype).min
        )

    def features(self, *, use_cache: bool = False, **inputs: object) -> tuple[Tensor, Any]:
        """Features of shape `(B, L, width)` for `logits`, and the model's cache if one was asked for."""
        self.positions.forget()
        # a cache of keys and values is memory that scoring never reads again
        if "use_cache" in self.takes:
            inputs["use_cache"] = use_cache
        with self.autocast():
            out = self.called(**inputs)
        features = out.last_hidden_state if self.selected else out.logits
        return features, getattr(out, self.cache_name or "", None)

    @property
    def _half(self) -> bool:
        return self.dtype == "bfloat16" and not self._exact

    def autocast(self) -> torch.autocast:
        """The precision of the model's body."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._half)

    def logits(self, features: Tensor) -> Tensor:
        """Logits of features, shape `(..., vocabulary)`, at least float32 whatever the body computes in.

        A log-softmax over bfloat16 logits is off by some 0.01 nats a token: nats over a long completion.
        """
        return _logits(features, self.head if self.selected else None, self.dtype)

    def head_alone(self) -> Callable[[Tensor], Tensor]:
        """`logits` as a function that outlives the body of the model."""
        return partial(_logits, head=copy.deepcopy(self.head) if self.selected else None, dtype=self.dtype)

    def agreed(self, values: Tensor) -> Tensor:
        """What all processes that share the layers go on with: the first one's values."""
        return self.sharding.of_first(values) if self.sharding else values


def _logits(features: Tensor, head: torch.nn.Linear | None, dtype: str) -> Tensor:
    """Logits of features; without a head, features are logits already."""
    if head is None:
        return features.double() if dtype == "float64" else features.float()
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = head(features.to(head.weight.dtype))
        return logits
