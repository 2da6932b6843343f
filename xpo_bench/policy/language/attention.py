"""Attention over packed rows: many prompts with their completions one behind the other, and no score computed
in vain.

A dense mask hides tokens from one another after their scores are computed, and a CPU kernel computes the
upper triangle of a causal mask too. Here each stretch of a packed row is compared with what it may see and
little else: a completion with its prompt and itself, a few queries at a time.

The function is registered with transformers under `NAME`. A forward pass that carries no `packing` is plain
scaled dot-product attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from xpo_bench.policy.language.pieces import Cuts, Packing, cut, in_pieces, parts_of
from xpo_bench.policy.language.tiles import Tiles, fits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "xpo_bench"
FILL = 16
"""torch computes what is left over from whole vectors by other code, and matrix products of a few rows too: a
packed row is filled up to a multiple, so that what a completion is packed with does not decide the last bits
of its score.
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


@dataclass(frozen=True, eq=False)
class Plan:
    """How a packed row is computed.

    Args:
        tiles: what is short. cuts: what is not. fill: zeros behind the output of the pieces.
        places: of each token of the row, where the tiles' and then the pieces' output has it, shape (L,);
            None where the output is in order. in_half: the same without tiles; products of bfloat16 add up in
            parts, so that there a masked key can change a last bit.
    """

    tiles: Tiles | None
    cuts: Cuts
    fill: int
    places: Tensor | None
    in_half: Plan | None = None


def prepare(packing: Packing, device: torch.device) -> Plan:
    """What `attention` takes as `packing`."""
    stretches = parts_of(packing)
    parts = [part for stretch in stretches for part in stretch]
    fill = sum(sum(lengths) for start, lengths in packing if not start)
    cuts = cut(stretches, fits, fill)
    pieces = Plan(None, cut(stretches, lambda part: False, fill), fill, None)
    short = [part for part in parts if fits(part)]
    if not short:
        return pieces
    tiles = Tiles.of(short, fill + sum(part.length for part in parts), fill)
    if tiles.whole:
        return Plan(tiles, cuts, 0, None, pieces)
    places = list[int]()
    end = len(tiles.queries)  # behind the tiles stand the pieces
    for part in parts:
        at = tiles.places.get(part, end)
        places += range(at, at + part.length)
        end += part.length if at == end else 0
    return Plan(tiles, cuts, 0, torch.tensor(places + [0] * fill), pieces)


def attention(
    module: torch.nn.Module | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Plan | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        query: shape (B, heads, L, width). key, value: shape (B, key heads, L, width). packing: what
            `prepare` makes of the one packed row (B = 1); its tokens see what it lets them see.
            attention_mask: None or empty then.

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
    # autocast casts for the functions of torch that it knows, and never doubles
    if torch.is_autocast_enabled(query.device.type) and query.dtype != torch.float64:
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = (heads.to(half) for heads in (query, key, value))
    return _planned(query, key, value, packing, scaling)[None], None


def _planned(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float | None) -> Tensor:
    """Attention over a packed row, shape (L, heads, width)."""
    if plan.in_half is not None and query.dtype == torch.bfloat16:
        plan = plan.in_half
    if plan.tiles is None:
        return in_pieces(query, key, value, plan.cuts, scale, plan.fill)
    out = plan.tiles.attend(query, key, value, scale)
    if plan.cuts.stretches:
        out = torch.cat([out, in_pieces(query, key, value, plan.cuts, scale)])
    return out if plan.places is None else out.index_select(0, plan.places)
