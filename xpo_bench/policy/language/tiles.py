"""Attention of short prompts and completions over one packed row: all of them in one kernel call.

A tile holds several parts, the keys of each beginning at a multiple of what torch's vectors hold. A masked
key adds an exact zero then, in the place of the sum that a key there has in any company: neither what else is
in the call nor its shape changes a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xpo_bench.policy.language.pieces import Part

MULTIPLE = 16
QUERIES = 8
"""Queries of a tile are filled up to a multiple: a matrix product of fewer rows takes another code path."""
SHORT = 48
"""Keys that a part may see to be short: beyond, one call for all computes more in vain than it saves."""
KEYS = 64
"""Keys of a tile, at most."""
EARLIER = np.tri(KEYS, dtype=bool)


def _up(length: int, multiple: int = MULTIPLE) -> int:
    return -(-length // multiple) * multiple


def fits(part: Part) -> bool:
    """Whether a prompt or completion is short enough for a tile."""
    return _up(part.before) + _up(part.length) <= SHORT


@dataclass
class _Tile:
    """Parts that are computed together.

    Attributes:
        keys: first token -> (where its keys begin, how many), of prompts and completions. count, queries: how
            many there are, filled up or not.
    """

    parts: list[Part] = field(default_factory=list)
    keys: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int = 0
    queries: int = 0

    def takes(self, part: Part) -> bool:
        """Put a part into the tile, if there is room."""
        # a prompt before its completion, always: the order of a sum decides its last bits
        wanted = {part.prompt: part.before} if part.before else {}
        wanted[part.first] = part.length
        new = {first: n for first, n in wanted.items() if first not in self.keys}
        if self.count + sum(map(_up, new.values())) > KEYS:
            return False
        for first, n in new.items():
            self.keys[first] = self.count, n
            self.count += _up(n)
        self.parts.append(part)
        self.queries += part.length
        return True


@dataclass(frozen=True, eq=False)
class Tiles:
    """Where the queries and keys of T tiles stand in the packed row, and which see which.

    Attributes:
        places: of each part, where its first token stands in what `attend` returns.
        queries: shape (T·M,). keys: shape (T·N,). visible: shape (T, 1, M, N).
        from_queries, from_keys: of each token of the row, where it stands in those, shape (L, n) for up to n
            places, filled up with one whose gradient is 0.
        whole: there is one tile, and its queries are the row as it stands.
    """

    places: dict[Part, int]
    queries: Tensor
    keys: Tensor
    visible: Tensor
    from_queries: Tensor
    from_keys: Tensor
    whole: bool
    _masks: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, parts: Sequence[Part], length: int, fill: int = 0) -> Tiles:
        """The tiles of short parts of a row of `length` tokens, the last `fill` of which only fill it up."""
        tiles = [_Tile()]
        for part in parts:
            if not tiles[-1].takes(part):
                tiles.append(_Tile())
                tiles[-1].takes(part)
        whole = len(tiles) == 1 and tiles[0].queries == length - fill
        # one more than the most: what is never filled has no gradient
        m = length if whole else max(_up(tile.queries + 1, QUERIES) for tile in tiles)
        n = max(_up(max(first + k for first, k in tile.keys.values()) + 1) for tile in tiles)
        queries, keys = np.zeros((len(tiles), m), np.int64), np.zeros((len(tiles), n), np.int64)
        visible = np.zeros((len(tiles), 1, m, n), bool)
        places: dict[Part, int] = {}
        key_places: list[list[int]] = [[] for _ in range(length)]
        for t, tile in enumerate(tiles):
            for first, (at, count) in tile.keys.items():
                keys[t, at : at + count] = range(first, first + count)
                for k in range(count):
                    key_places[first + k].append(t * n + at + k)
            i = 0
            for part in tile.parts:
                end, own, ahead = i + part.length, tile.keys[part.first][0], part.before
                places[part] = t * m + i
                queries[t, i:end] = range(part.first, part.first + part.length)
                visible[t, 0, i:end, own : own + part.length] = EARLIER[: part.length, : part.length]
                if ahead:
                    at = tile.keys[part.prompt][0]
                    visible[t, 0, i:end, at : at + ahead] = True
                i = end
            visible[t, 0, i:, 0] = True  # what fills up is not read
        query_places = np.full((length, 1), len(tiles) * m - 1)
        for part, at in places.items():
            query_places[part.first : part.first + part.length, 0] = range(at, at + part.length)
        wide = max(map(len, key_places))
        # of every tile, the last key is none: `n` is beyond what any has
        back = [[*found, *[len(tiles) * n - 1] * (wide - len(found))] for found in key_places]
        return cls(
            places,
            torch.from_numpy(queries.reshape(-1)),
            torch.from_numpy(keys.reshape(-1)),
            torch.from_numpy(visible),
            torch.from_numpy(query_places),
            torch.tensor(back),
            whole,
        )

    def mask(self, dtype: torch.dtype) -> Tensor:
        """0 where a query sees a key, −inf elsewhere."""
        known = self._masks.get(dtype)
        if known is None:
            blank = torch.zeros(self.visible.shape, dtype=dtype)
            known = self._masks[dtype] = blank.masked_fill_(~self.visible, -torch.inf)
        return known

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """softmax(q·kᵀ·scale + mask)·v of every tile.

        Args:
            query, key, value: of the row, shape (1, heads, L, width), of one dtype.

        Returns:
            One tile behind the other, shape (T·M, heads, width).
        """
        count = len(self.visible)
        if not self.whole:
            (query,) = _picked(count, self.queries, self.from_queries, query)
        key, value = _picked(count, self.keys, self.from_keys, key, value)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask(query.dtype), scale=scale)
        return out.transpose(1, 2).flatten(0, 1)


def _picked(tiles: int, at: Tensor, back: Tensor, *heads: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _Picked.apply(tiles, at, back, *heads)  # type: ignore[no-untyped-call]
    return found


class _Picked(torch.autograd.Function):
    """Tokens of a row by tile, shape (T, heads, ·, width). Each token knows where it stands in the tiles: the
    gradient is picked as well, which takes a fraction of adding up row by row.
    """

    @staticmethod
    def forward(ctx: Any, tiles: int, at: Tensor, back: Tensor, *heads: Tensor) -> tuple[Tensor, ...]:
        ctx.back = back
        rows = (each[0].transpose(0, 1).index_select(0, at) for each in heads)
        return tuple(each.view(tiles, -1, *each.shape[1:]).transpose(1, 2) for each in rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        length, places = ctx.back.shape
        out = []
        for grad in grads:
            rows = grad.transpose(1, 2).flatten(0, 1).index_select(0, ctx.back.view(-1))
            if places > 1:
                rows = rows.view(length, places, *rows.shape[1:]).sum(1)
            out.append(rows.transpose(0, 1)[None])
        return None, None, None, *out
