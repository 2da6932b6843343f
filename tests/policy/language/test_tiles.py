"""Short prompts and completions of a packed row are computed in tiles, as attention under the mask has it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xpo_bench.policy.language import attention, tiles
from xpo_bench.policy.language.pieces import Packing, parts_of

CPU = torch.device("cpu")
packings = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 40), st.lists(st.integers(1, 40), max_size=6)),
    min_size=1,
    max_size=4,
)


def visible(packing: Packing) -> torch.Tensor:
    """Which token of the row sees which, shape (L, L)."""
    block, number = [], []
    for b, (start, lengths) in enumerate(packing):
        for n, length in enumerate(lengths):
            own = [0] * start + [1] * (length - start) if n == 0 else [n + 1] * length
            block += [b] * length
            number += own
    blocks, numbers = torch.tensor(block), torch.tensor(number)
    same = (numbers == 0) | (numbers[:, None] == numbers)
    return (blocks[:, None] == blocks) & same & torch.ones(len(block), len(block)).tril().bool()


@settings(max_examples=40, deadline=None)
@given(drawn=packings, fill=st.integers(0, 15))
def test_tiles_and_pieces_are_attention_under_the_mask(
    drawn: list[tuple[int, int, list[int]]], fill: int
) -> None:
    packing = [(start, [start + first, *more]) for start, first, more in drawn]
    filled = [*packing, *([(0, [fill])] if fill else [])]
    sees = visible(filled)
    length = len(sees)
    rng = torch.Generator().manual_seed(length)
    query, key, value = heads = [
        torch.randn(1, 2, length, 4, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]
    want = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=sees, scale=0.3
    ).transpose(1, 2)
    plan = attention.prepare(filled, CPU)
    got, _ = attention.attention(None, query, key, value, None, scaling=0.3, packing=plan)
    read = length - fill
    torch.testing.assert_close(got[:, :read], want[:, :read], rtol=0, atol=1e-12)
    weights = torch.randn(1, read, 2, 4, generator=rng, dtype=torch.float64)
    found = [
        torch.autograd.grad((out[:, :read] * weights).sum(), heads, retain_graph=True) for out in (got, want)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("packing", "whole", "stretches"),
    [
        ([(6, [9, 3]), (0, [4])], True, 0),  # all in one call, as the row stands
        ([(6, [9, 3])] * 4, False, 0),
        ([(6, [80, 3])], False, 1),
        ([(100, [103, 3])], False, 2),
    ],
)
def test_what_is_short_is_computed_in_tiles(packing: Packing, whole: bool, stretches: int) -> None:
    plan = attention.prepare(packing, CPU)
    assert (plan.tiles is not None and plan.tiles.whole) is whole
    assert len(plan.cuts.stretches) == stretches


@given(drawn=packings)
def test_a_tile_keeps_its_size(drawn: list[tuple[int, int, list[int]]]) -> None:
    packing = [(start, [start + first, *more]) for start, first, more in drawn]
    parts = [part for stretch in parts_of(packing) for part in stretch]
    assert sum(part.length for part in parts) == sum(sum(lengths) for _, lengths in packing)
    short = [part for part in parts if tiles.fits(part)]
    if short:
        made = tiles.Tiles.of(short, sum(part.length for part in parts))
        assert made.visible.shape[-1] <= tiles.KEYS + tiles.MULTIPLE
        assert set(made.places) == set(short)
