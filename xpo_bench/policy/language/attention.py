"""Attention over packed rows: many prompts with their completions one behind the other, and no score computed
in vain.

A dense mask hides tokens from one another after their scores are computed, and a CPU kernel computes the
upper triangle of a causal mask too. Here each stretch of a packed row is compared with what it may see and
little else: a completion with its prompt and itself, a few queries at a time.

The function is registered with transformers under `NAME`. A forward pass that carries no `packing` is plain
scaled dot-product attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "xpo_bench"
FILL = 16
"""torch computes what is left over from whole vectors by other code, and matrix products of a few rows too: a
packed row is filled up to a multiple, so that what a completion is packed with does not decide the last bits
of its score.
"""
QUERIES = 64
"""Queries that are compared at a time, about: fewer compute less of the triangle that a causal mask hides, in
more calls.
"""


class OwnMask(Exception):
    """A model hides tokens by a mask that it builds itself: packed rows would lose it."""


def require_no_mask(mask: Tensor | None) -> None:
    """Packed rows come with an empty mask; whatever else arrives was built by the model.

    Raises:
        OwnMask: it hides what it wants hidden.
    """
    if mask is not None and mask.numel():
        raise OwnMask("the model builds a mask of its own")


Packing = Sequence[tuple[int, Sequence[int]]]
"""Of each block, in the order of the packed row: tokens of its prompt, and of its stretches. The first
stretch is the prompt and its first completion, every further one another completion."""


class Attention(Protocol):
    """Attention as transformers calls it."""

    def __call__(
        self,
        module: torch.nn.Module | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        /,
    ) -> tuple[Tensor, None]: ...


def register(model: PreTrainedModel, name: str, function: Attention) -> None:
    """Let a Hugging Face model compute its attention by a function, with the masks of scaled dot products."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def use(model: PreTrainedModel) -> None:
    """Let a Hugging Face model compute its attention here."""
    register(model, NAME, attention)


def plain(
    module: torch.nn.Module | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    **more: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, of a forward pass that packs nothing."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    out: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, scaling=scaling, **more
    )
    return out


def prepare(packing: Packing, device: torch.device) -> Packing:
    """What `attention` takes as `packing`."""
    return packing


def attention(
    module: torch.nn.Module | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        query: shape (B, heads, L, width). key, value: shape (B, key heads, L, width). packing: how the one
            packed row (B = 1) is made up; its tokens see what it lets them see. attention_mask: None or empty
            then.

    Returns:
        Shape (B, L, heads, width), and no weights.

    Raises:
        OwnMask: a packed row for a model that hides tokens itself.
    """
    if packing is None:
        return plain(module, query, key, value, attention_mask, scaling, **more)
    require_no_mask(attention_mask)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # a group of heads shares its keys
        key, value = (
            heads[:, :, None].expand(-1, -1, repeats, -1, -1).flatten(1, 2) for heads in (key, value)
        )
    stretches = [length for _, lengths in packing for length in lengths]
    # the first stretch is cut at the end of the prompt, so that a prompt's pieces do not depend on what
    # follows it, and the last bits of its keys and values neither
    pieces = [
        cut
        for start, (first, *others) in packing
        for cut in (_pieces(start) + _pieces(first - start), *map(_pieces, others))
    ]
    queries = iter(query.split([length for cut in pieces for length in cut], 2))
    keys, values = (iter(heads.split(stretches, 2)) for heads in (key, value))
    cuts = iter(pieces)
    out = []
    for start, lengths in packing:
        prompt: tuple[Tensor, Tensor] | None = None
        for length in lengths:
            k, v = next(keys), next(values)
            if prompt is None:
                prompt = k[:, :, :start], v[:, :, :start]
            else:  # a further completion sees the prompt and itself, not the completions between them
                k, v = torch.cat([prompt[0], k], 2), torch.cat([prompt[1], v], 2)
            seen = k.shape[2] - length
            for piece in next(cuts):  # softmax(q·kᵀ·scale + mask)·v, over the keys up to the piece's end
                seen += piece
                mask = lower_right(piece, seen, query.dtype)
                out.append(
                    F.scaled_dot_product_attention(
                        next(queries), k[:, :, :seen], v[:, :, :seen], attn_mask=mask, scale=scaling
                    )
                )
    return torch.cat(out, 2).transpose(1, 2).contiguous(), None


def _pieces(length: int) -> list[int]:
    """A stretch cut into about equal pieces of about `QUERIES` tokens."""
    if not length:
        return []
    count = max(1, round(length / QUERIES))
    short, rest = divmod(length, count)
    return [short + 1] * rest + [short] * (count - rest)


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
