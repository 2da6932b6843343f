"""Attention over one packed row in pieces: a few queries against the keys that they may see, one kernel call
each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES = 64
"""Queries that are compared at a time, about: fewer compute less of the triangle that a causal mask hides, in
more calls.
"""

Packing: TypeAlias = Sequence[tuple[int, Sequence[int]]]
"""Of each block, in the order of the packed row: tokens of its prompt, and of its stretches. The first
stretch is the prompt and its first completion, every further one another completion. A prompt of no tokens
fills up: nothing reads what is computed there, and its attention is 0."""


class Part(NamedTuple):
    """A prompt, or a completion: `length` tokens from `first` on, which see themselves and, in the row from
    `prompt` on, `before` tokens.
    """

    first: int
    length: int
    prompt: int
    before: int


class Piece(NamedTuple):
    """Number `queries` of what the row's queries are cut into sees the first `seen` keys of its stretch."""

    queries: int
    seen: int


class Stretch(NamedTuple):
    """Number `own` of what the row's keys are cut into, behind the first `before` of number `prompt`."""

    own: int
    prompt: int
    before: int
    pieces: tuple[Piece, ...]


class Cuts(NamedTuple):
    """A row in pieces.

    Args:
        queries, keys: lengths that the row is cut into, L tokens together: one call per gradient, where
            slices would each have one of L tokens.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    stretches: tuple[Stretch, ...]


def parts_of(packing: Packing) -> list[list[Part]]:
    """The prompts and completions of a row by stretch; what only fills up is none of them.

    The first stretch is two parts: a prompt's attention does not depend on what follows it, so that the last
    bits of its keys and values do not either.
    """
    out: list[list[Part]] = []
    at = 0
    for start, lengths in packing:
        for number, length in enumerate(lengths):
            own = Part(at, length, at - sum(lengths[:number]), start)
            if start:
                prompt = [] if number else [Part(at, start, at, 0)]
                behind = own if number else Part(at + start, length - start, at, start)
                out.append([*prompt, *([behind] if behind.length else [])])
            at += length
    return out


def cut(stretches: Sequence[Sequence[Part]], done: Callable[[Part], bool], fill: int) -> Cuts:
    """The stretches in pieces, but for the parts that are done otherwise and the `fill` tokens at the end."""
    queries: list[int] = []
    keys: list[int] = []
    out: list[Stretch] = []
    prompt = 0
    for own, parts in enumerate(stretches):
        keys.append(sum(part.length for part in parts))
        if not parts[0].before:
            prompt = own
        pieces: list[Piece] = []
        for part in parts:
            seen = part.before
            for length in [part.length] if done(part) else _equal(part.length):
                seen += length
                pieces += [] if done(part) else [Piece(len(queries), seen)]
                queries.append(length)
        if pieces:
            out.append(Stretch(own, prompt, parts[0].before, tuple(pieces)))
    return Cuts((*queries, fill), (*keys, fill), tuple(out))


def _equal(length: int) -> list[int]:
    """A part cut into about equal lengths of about `QUERIES` tokens."""
    count = max(1, round(length / QUERIES))
    short, rest = divmod(length, count)
    return [short + 1] * rest + [short] * (count - rest)


@lru_cache(maxsize=4096)
def lower_right(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """0 where the last `queries` of `keys` tokens see a token, −inf elsewhere, shape (queries, keys).

    Query i stands at place keys − queries + i and sees the keys up to there.
    """
    # a staircase for keys up to a power of two serves all that are shorter
    half = 1 << max(8, (keys - 1).bit_length())
    first = half - (keys - queries)
    return _staircase(2 * QUERIES, half, dtype)[:queries, first : first + keys]


@lru_cache(maxsize=8)
def _staircase(queries: int, half: int, dtype: torch.dtype) -> Tensor:
    """Row i is 0 up to column half + i, shape (queries, 2·half): every lower-right mask is a part of it."""
    ahead = torch.arange(2 * half)[None] - torch.arange(queries)[:, None] > half
    return torch.zeros(queries, 2 * half, dtype=dtype).masked_fill_(ahead, -torch.inf)


def in_pieces(
    query: Tensor, key: Tensor, value: Tensor, cuts: Cuts, scale: float | None, fill: int = 0
) -> Tensor:
    """softmax(q·kᵀ·scale + mask)·v of the pieces of a packed row.

    Args:
        query, key, value: shape (1, heads, L, width), of one dtype. fill: rows of zeros behind the others.

    Returns:
        One piece behind the other, shape (n, heads, width).
    """
    queries, keys, values = query.split(cuts.queries, 2), key.split(cuts.keys, 2), value.split(cuts.keys, 2)
    prompts: dict[int, tuple[Tensor, Tensor]] = {}
    out = []
    for own, prompt, before, pieces in cuts.stretches:
        k, v = keys[own], values[own]
        if before:  # a further completion sees the prompt and itself, not the completions between them
            if prompt not in prompts:
                prompts[prompt] = keys[prompt][:, :, :before], values[prompt][:, :, :before]
            k, v = (
                torch.cat([ahead, behind], 2) for ahead, behind in zip(prompts[prompt], (k, v), strict=True)
            )
        for number, seen in pieces:
            part = queries[number]
            mask = lower_right(part.shape[2], seen, query.dtype)
            found = F.scaled_dot_product_attention(
                part, k[:, :, :seen], v[:, :, :seen], attn_mask=mask, scale=scale
            )
            out.append(found[0].transpose(0, 1))
    return torch.cat([*out, out[0].new_zeros(fill, *out[0].shape[1:])] if fill else out)
