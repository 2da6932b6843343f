"""Continuing prompts token by token: batches padded on the left with a cache, or a slower way that a model
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from xpo_bench.policy.language.layout import batches
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.rope import LengthDependence

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
    device = network.device
    rows, width, limit = len(starts), max(map(len, starts)), uniform.shape[1]
    padded = any(len(start) < width for start in starts)
    tokens = torch.tensor([[*([0] * (width - len(start))), *start] for start in starts], device=device)
    mask = torch.tensor(
        [[0] * (width - len(start)) + [1] * (len(start) + limit) for start in starts], device=device
    )
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    uniform = uniform.to(device)
    drawn = torch.zeros(rows, limit, dtype=torch.long, device=device)
    logps = torch.zeros(rows, limit, dtype=network.value_dtype, device=device)
    row = torch.arange(rows, device=device)  # of every line that is still computed
    length = torch.tensor([len(start) for start in starts], device=device)
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    ends = torch.tensor(list(stop), device=device)
    cache: Any = None
    last = 0
    with network.autocast():  # outer scope: weights are cast once per batch, not once per token
        for t in range(limit):
            end, last = width + t, t + 1
            if network.positions.changes(end - 1, end) if t else False:
                cache = None  # its keys were turned by other frequencies
            begin = 0 if cache is None else end - 1
            inputs: dict[str, Any] = {"input_ids": tokens[:, begin:]}
            if padded:
                inputs["attention_mask"] = mask[:, :end]
            if padded and takes_positions:
                inputs["position_ids"] = positions[:, begin:end]
            if cache is not None and network.cache_name:
                inputs[network.cache_name] = cache
            features, made = network.features(use_cache=way != "no cache", **inputs)
            fed = (length + t)[~done].tolist()
            count([(0 if cache is None else n - 1, n) for n in fed], len(fed))
            cache = made if way != "no cache" else None
            logits = network.logits(features[:, -1])
            token = network.agreed(draw(logits / temperature, uniform[:, t], top_k))
            drawn[row, t] = token
            logps[row, t] = torch.log_softmax(logits, -1).gather(1, token[:, None])[:, 0]
            tokens = torch.cat([tokens, token[:, None]], 1)
            if not len(ends):
                continue
            done |= torch.isin(token, ends)
            going = int((~done).sum())
            if not going:
                break
            if (
                shrinks
                and 2 * going <= len(done)
                and (cache is None or hasattr(cache, "batch_select_indices"))
            ):
                keep = torch.nonzero(~done).flatten()  # the finished ones cost no more
                if cache is not None:
                    cache.batch_select_indices(keep)
                tokens, mask, positions, uniform = tokens[keep], mask[keep], positions[keep], uniform[keep]
                row, length, done = row[keep], length[keep], done[keep]
    return drawn[:, :last].tolist(), logps[:, :last].cpu()


def draw(logits: Tensor, uniform: Tensor, top_k: int) -> Tensor:
    """One token per row by inversion of the cumulative distribution, in float64; shape `(B,)`."""
    logits = logits.double()
    if 0 < top_k < logits.shape[-1]:
        kept = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    cumulative = logits.softmax(-1).cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # the first token whose cumulative probability exceeds the target: never one of probability zero
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
