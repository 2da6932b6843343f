"""Attention over packed rows on an accelerator: PyTorch's FlexAttention, told which blocks of the scores
exist.

The row is the one of `attention`: prompts with their completions, one behind the other. Scores are computed
in square blocks, and only in those that hold a visible one; in blocks without a hidden one nothing is masked.
The kernel is compiled on the device; on a CPU the same function runs uncompiled, without its speed and
without a backward pass.

Source: Dong et al. 2024, FlexAttention (arXiv:2412.05496).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xpo_bench.policy.language.attention import plain, register, require_no_mask
from xpo_bench.policy.language.pieces import Packing

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

NAME = "xpo_bench_flex"
BLOCK = 128
"""Tokens at a side of a block."""
FILL = BLOCK
"""A packed row is filled up to a multiple: fewer shapes to compile for."""


def use(model: PreTrainedModel) -> None:
    """Let a Hugging Face model compute its attention here."""
    register(model, NAME, attention)


def attention(
    module: torch.nn.Module | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: BlockMask | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; plain scaled dot-product attention where no `packing` is given.

    Args:
        query: shape (B, heads, L, width). key, value: shape (B, key heads, L, width). packing: what `prepare`
            makes of a packed row; its tokens see what it lets them see. attention_mask: None or empty then.

    Returns:
        Shape (B, L, heads, width), and no weights.

    Raises:
        OwnMask: a packed row for a model that hides tokens itself.
    """
    if packing is None:
        return plain(module, query, key, value, attention_mask, scaling, **more)
    require_no_mask(attention_mask)
    out = _kernel(query.device.type)(
        query, key, value, block_mask=packing, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2).contiguous(), None


@cache
def _kernel(device: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    if device == "cpu":
        return flex_attention
    return torch.compile(flex_attention, dynamic=True)


def prepare(packing: Packing, device: torch.device) -> BlockMask:
    """Which blocks of a packed row's scores exist, and which tokens see which inside of them."""
    from torch.nn.attention.flex_attention import BlockMask

    prompt, part = (values.to(device) for values in _places(packing))
    length = len(prompt)

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """A token sees what comes before it in its prompt and in its own completion."""
        return (k <= q) & (prompt[q] == prompt[k]) & ((part[k] == 0) | (part[k] == part[q]))

    some, all_ = _blocks(prompt, part)
    # of each row of blocks, the columns that exist, first of all; the counts say how many they are
    order, every = (
        blocks.int().argsort(dim=-1, descending=True, stable=True).int()[None, None]
        for blocks in (some, all_)
    )
    return BlockMask.from_kv_blocks(
        some.sum(-1).int()[None, None],
        order,
        all_.sum(-1).int()[None, None],
        every,
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


def _places(packing: Packing) -> tuple[Tensor, Tensor]:
    """Of each token, which prompt it belongs to and which of its completions, 0 for the prompt itself; shape
    (L,) both.
    """
    prompts: list[int] = []
    parts: list[int] = []
    for number, (start, (first, *more)) in enumerate(packing):
        lengths = [start, first - start, *more]
        prompts += [number] * sum(lengths)
        for part, length in enumerate(lengths):
            parts += [part] * length
    return torch.tensor(prompts), torch.tensor(parts)


def _blocks(prompt: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of scores that may hold visible and hidden ones, and those that hold none hidden; shape (n, n)
    both, bool.
    """
    short = -len(prompt) % BLOCK
    ends = []  # the smallest and largest prompt, and part, among the tokens of each block
    for values in (prompt, part):
        cut = torch.nn.functional.pad(values, (0, short), value=-1).view(-1, BLOCK)
        if short:  # what lies beyond the row is in no prompt
            cut[-1, -short:] = cut[-1, -short - 1]
        ends.append((cut.amin(-1), cut.amax(-1)))
    (first, last), (low, high) = ends
    one = (first == last) & (low == high)  # all tokens are of one completion, or of one prompt
    at = torch.arange(len(first), device=prompt.device)
    earlier = at[None, :] < at[:, None]
    # queries are rows, keys are columns; of two such blocks of one prompt, all tokens see one another or none
    pure = one[:, None] & one[None, :] & (first[:, None] == first[None, :])
    seen = (low[None, :] == 0) | (low[None, :] == low[:, None])
    whole = pure & earlier & seen
    # otherwise a block may hold visible scores where both have tokens of one prompt; a block meets itself
    meet = (first[None, :] <= last[:, None]) & (first[:, None] <= last[None, :])
    reached = earlier | torch.eye(len(at), dtype=torch.bool, device=prompt.device)
    return meet & reached & ~(pure & ~seen) & ~whole, whole
