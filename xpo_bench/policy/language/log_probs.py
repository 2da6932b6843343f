"""Numbers at completion positions from the output head, a chunk of positions at a time.

Logits are the largest tensor of a step: K positions times a vocabulary of up to 256,000. They exist for one
chunk at a time; with a graph, a chunk is computed again in the backward pass instead of being kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xpo_bench.policy.language.network import Network

LOGITS_PER_CHUNK = 2**26
"""Logits that exist at a time (256 MiB in float32)."""


def chunk_size(network: Network) -> int:
    """Positions that go through the head at a time: a multiple of what rows are filled up to."""
    fill: int = network.kernel.FILL
    return max(fill, LOGITS_PER_CHUNK // network.vocabulary // fill * fill)


def in_chunks(
    compute: Callable[..., tuple[Tensor, ...]], size: int, *values: Tensor, fill: int = 1
) -> tuple[Tensor, ...]:
    """`compute(*values)` for `size` positions at a time, joined.

    Args:
        compute: takes a piece of every value and returns tensors with one entry per position.
        values: one entry per position along the first axis.
        fill: positions are filled up to a multiple. A matrix product of a few rows takes another code path
            than one of many, so that without it the last bits of a score would depend on its batch.
    """
    count = len(values[0])
    if extra := -count % fill:
        values = tuple(F.pad(value, (0, 0) * (value.dim() - 1) + (0, extra)) for value in values)
    pieces = list(zip(*(value.split(size) for value in values), strict=True))
    # with one piece there is nothing to save: its logits exist in the backward pass either way
    if len(pieces) > 1 and torch.is_grad_enabled():
        found = [
            checkpoint(compute, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces
        ]
    else:
        found = [compute(*piece) for piece in pieces]
    return tuple(torch.cat(parts)[:count] for parts in zip(*found, strict=True))


def target_logps(network: Network, features: Tensor, targets: Tensor, size: int, fill: int = 1) -> Tensor:
    """Log-probability of each target in nats, shape (K,), from features of shape (K, width)."""

    def chunk(part: Tensor, tokens: Tensor) -> tuple[Tensor]:
        # −cross entropy is log softmax at the target, without keeping the other log-probabilities
        return (-F.cross_entropy(network.logits(part), tokens, reduction="none"),)

    (logps,) = in_chunks(chunk, size, features, targets, fill=fill)
    return logps
