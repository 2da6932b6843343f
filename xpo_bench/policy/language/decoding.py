"""Continuing prompts token by token: batches padded on the left with a cache, or a slower way that a model
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from xpo_bench.policy.language.layout import batches
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.rope import LengthDependence

if TYPE_CHECKING:
    from transformers import Cache

Way = Literal["batched", "equal lengths", "one row", "no cache"]
WAYS: tuple[Way, ...] = ("batched", "equal lengths", "one row", "no cache")
"""How prompts are continued: together, padded on the left; together where they are of one length; each by
itself; each by itself and from the start for every token."""

Count = Callable[[Sequence[tuple[int, int]], int], None]
"""Told the (first, last) positions that were computed of each row, and how many of them went through the
head.
"""


def decode_batches(
    lengths: Sequence[int], limit: int, tokens: int, *, way: Way, positions: LengthDependence
) -> Iterator[list[int]]:
    """Prompts to continue together, as indices.

    Those that stay on one side of every length at which position encodings change are kept apart from those
    that stay on another; what passes one goes by itself.

    Args:
        lengths: of the prompts. limit: tokens that each is continued by, at most. tokens: padded ones of a
            batch, at most.
    """
    for batch in batches([length + limit for length in lengths], tokens):
        keys = {b: _key(lengths[b], limit, way, positions, b) for b in batch}
        yield from (
            list(same) for _, same in groupby(sorted(batch, key=lambda b: keys[b]), key=lambda b: keys[b])
        )


def _key(length: int, limit: int, way: Way, positions: LengthDependence, index: int) -> tuple[int, ...]:
    changes = positions.changes(length, length + limit)
    alone = index + 1 if changes or way in ("one row", "no cache") else 0
    return (alone, positions.regime(length), length if way != "batched" else 0)


def decode(
    network: Network,
    starts: Sequence[Sequence[int]],
    uniform: Tensor,
    stop: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    *,
    way: Way = "batched",
    shrinks: bool = True,
    takes_positions: bool = True,
    count: Count = lambda rows, positions: None,
) -> tuple[list[list[int]], Tensor]:
    """Continue one batch of prompts.

    Args:
        starts: prompts, of one batch that `decode_batches` would make. uniform: numbers in [0, 1) that
            decide, shape (B, T), on the CPU. stop: ids behind which a row is not continued.
        shrinks: rows that have ended leave the batch. takes_positions: the model can be told positions.

    Returns:
        Tokens of each row (those after a stop are to be ignored) and their log-probabilities, shape `(B, T)`,
        on the CPU.
    """
    lines = _Lines(starts, uniform, network.device)
    limit = uniform.shape[1]
    drawn = torch.zeros(len(starts), limit, dtype=torch.long, device=network.device)
    logps = torch.zeros(len(starts), limit, dtype=network.value_dtype, device=network.device)
    ends = torch.tensor(list(stop), device=network.device)
    cache: Cache | None = None
    last = 0
    with network.autocast():  # outer scope: weights are cast once per batch, not once per token
        for t in range(limit):
            end, last = lines.width + t, t + 1
            if t and network.positions.changes(end - 1, end):
                cache = None  # its keys were turned by other frequencies
            begin = 0 if cache is None else end - 1  # with a cache, only the newest token is fed
            inputs = lines.inputs(begin, end, takes_positions)
            if cache is not None and network.cache_name:
                inputs[network.cache_name] = cache
            features, made = network.features(use_cache=way != "no cache", **inputs)
            fed = (lines.length + t)[~lines.done].tolist()
            count([(0 if cache is None else n - 1, n) for n in fed], len(fed))
            cache = made if way != "no cache" else None
            logits = network.logits(features[:, -1])
            token = network.agreed(draw(logits / temperature, lines.uniform[:, t], top_k))
            drawn[lines.row, t] = token
            # what is recorded is log π at temperature 1, whatever the draw was made with
            logps[lines.row, t] = torch.log_softmax(logits, -1).gather(1, token[:, None])[:, 0]
            lines.append(token, ends)
            going = int((~lines.done).sum()) if len(ends) else len(lines.done)
            if not going:
                break
            # ended rows leave when they are half of the batch: fewer copies of the cache than one per row
            if shrinks and 2 * going <= len(lines.done) and _shrinkable(cache):
                lines.keep(torch.nonzero(~lines.done).flatten(), cache)
    return drawn[:, :last].tolist(), logps[:, :last].cpu()


class _Lines:
    """The rows of a batch that are still computed, padded on the left to one width.

    Attributes:
        tokens: prompts and what was drawn, shape (B, L). mask: 0 on padding, shape (B, L + rest).
        positions: of every token in its own row, 0 on padding, shape (B, L + rest).
        row: where each stood in the batch. length: tokens of its prompt. done: whether it has ended.
    """

    def __init__(self, starts: Sequence[Sequence[int]], uniform: Tensor, device: torch.device) -> None:
        self.width, limit = max(map(len, starts)), uniform.shape[1]
        short = [self.width - len(start) for start in starts]
        self.padded = any(short)
        self.tokens = torch.tensor(
            [[*([0] * pad), *start] for pad, start in zip(short, starts, strict=True)], device=device
        )
        self.mask = torch.tensor(
            [[0] * pad + [1] * (self.width - pad + limit) for pad in short], device=device
        )
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.uniform = uniform.to(device)
        self.row = torch.arange(len(starts), device=device)
        self.length = torch.tensor([len(start) for start in starts], device=device)
        self.done = torch.zeros(len(starts), dtype=torch.bool, device=device)

    def inputs(self, begin: int, end: int, takes_positions: bool) -> dict[str, Any]:
        """What the model is fed; without padding its own mask and positions are right."""
        inputs: dict[str, Any] = {"input_ids": self.tokens[:, begin:]}
        if self.padded:
            inputs["attention_mask"] = self.mask[:, :end]
        if self.padded and takes_positions:
            inputs["position_ids"] = self.positions[:, begin:end]
        return inputs

    def append(self, token: Tensor, ends: Tensor) -> None:
        """Go on by one token of each row, shape (B,)."""
        self.tokens = torch.cat([self.tokens, token[:, None]], 1)
        if len(ends):
            self.done |= torch.isin(token, ends)

    def keep(self, index: Tensor, cache: Cache | None) -> None:
        """Go on with these rows alone."""
        if cache is not None:
            cache.batch_select_indices(index)
        self.tokens, self.mask, self.positions = self.tokens[index], self.mask[index], self.positions[index]
        self.uniform, self.row = self.uniform[index], self.row[index]
        self.length, self.done = self.length[index], self.done[index]


def _shrinkable(cache: Cache | None) -> bool:
    """Whether rows can leave; some caches cannot let go of any."""
    return cache is None or hasattr(cache, "batch_select_indices")


def draw(logits: Tensor, uniform: Tensor, top_k: int) -> Tensor:
    """One token per row by inversion of the cumulative distribution, in float64; shape `(B,)`.

    With F(k) = Σ_{i ≤ k} p_i and u uniform in [0, 1), min{k : F(k) > u·F(V)} is distributed as p. Scaling by
    F(V) instead of 1 makes up for rounding of the sum.
    """
    logits = logits.double()
    if 0 < top_k < logits.shape[-1]:
        kept = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    cumulative = logits.softmax(-1).cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # the first token whose cumulative probability exceeds the target: never one of probability zero
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
