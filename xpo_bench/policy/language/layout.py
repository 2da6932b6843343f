"""How rows are laid out for one forward pass: completions of one prompt share it, and prompts share a row.

A block is the prompt once and its completions one after the other. Positions restart at the end of the prompt
for every completion, and completions are hidden from one another, so each is scored as if it stood behind the
prompt alone. The last token of a completion predicts nothing and is left out.

Blocks are packed, one behind the other in one row without padding, where the attention knows how to keep them
apart; otherwise each is a row of a padded batch, with a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from xpo_bench.policy.language.pieces import Packing
from xpo_bench.policy.language.tokenize import Row


@dataclass(frozen=True)
class Block:
    """Rows with one prompt.

    Args:
        members: which rows, as indices. start: tokens of the prompt. length: tokens that are fed.
    """

    members: tuple[int, ...]
    start: int
    length: int


def blocks(rows: Sequence[Row], limit: int, reach: int, attention: float = 0.0) -> list[Block]:
    """Rows gathered by prompt, in the order of their first row, as long as that saves operations.

    Under a mask, a row that joins a block of L tokens saves its prompt, and pays for scores of attention
    between all tokens of the block, which the mask hides but which are computed.

    Args:
        limit: tokens of a block of several rows, at most. reach: tokens of a row that may share its prompt,
            at most; 0 lets none. attention: what a token under a mask costs per token that it is compared
            with, in units of what it costs otherwise; 0 where nothing is computed in vain.
    """
    groups: dict[tuple[int, ...], list[Block]] = {}
    out: list[list[Block]] = []
    for i, row in enumerate(rows):
        alone = Block((i,), row.start, len(row.ids) - 1)
        if len(row.ids) > reach:
            out.append([alone])
            continue
        prompt = row.ids[: row.start]
        known = groups.get(prompt)
        if known is None:
            groups[prompt] = [alone]
            out.append(groups[prompt])
            continue
        last, length = known[-1], known[-1].length + row.tail - 1
        # saved: `start` tokens, each worth 1; paid: (L + m)² − L² − n² scores, each worth `attention`, where
        # a row of n tokens adds m to a block of L
        scores = length**2 - last.length**2 - alone.length**2
        if length <= limit and row.start >= attention * scores:
            known[-1] = Block((*last.members, i), row.start, length)
        else:
            known.append(alone)
    return [block for group in out for block in group]


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of rows or blocks, longest first, cut where a batch would exceed `tokens` padded tokens."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def packs(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of blocks, in their order, cut into as few parts of about `tokens` tokens, and as equal, as
    they come.
    """
    total = sum(lengths)
    count = max(1, round(total / tokens))
    part: list[int] = []
    done, cut = 0, 1
    for i, length in enumerate(lengths):
        part.append(i)
        done += length
        if done * count >= total * cut:
            yield part
            part, cut = [], done * count // total + 1
    if part:
        yield part


@dataclass(frozen=True)
class Layout:
    """One forward pass: a packed row, filled up, or rows padded on the right.

    Attributes:
        ids: shape (B, L). at: for every completion token, the flat position whose features predict it, row
            after row, shape (K,). targets: those tokens, shape (K,). needed: all of `at` in order, each once,
            and in a packed row others that fill them up to a multiple.
        positions: shape (B, L). visible: true where a token attends to another, shape (B, 1, L, L). packing:
            see `pieces.Packing`. A padded batch has no packing, a packed row no `visible`; all three are
            None when no prompt is shared, and the model's own causal mask does.
        fed: tokens that are fed, padding excluded.
    """

    ids: Tensor
    needed: Tensor
    at: Tensor
    targets: Tensor
    positions: Tensor | None
    visible: Tensor | None
    packing: Packing | None
    fed: int


def lay_out(
    rows: Sequence[Row],
    parts: Sequence[Block],
    device: torch.device,
    fill: int = 0,
    *,
    whole: bool = False,
    shares: int = 1,
) -> Layout:
    """Blocks as tensors; `parts` together hold every row once.

    Args:
        fill: pack them into one row, filled up to a multiple of this; 0 pads each to a row of its own.
        whole: feed the last token of each row too, which predicts nothing, for models whose position encoding
            depends on the length of the row.
        shares: equal parts of the whole, one behind the other, in each of which as many positions are
            `needed`.
    """
    packed = fill > 0
    skipped = 0 if whole else 1  # the last token of a row predicts nothing
    width = 0 if packed else max(part.length + (1 - skipped) * len(part.members) for part in parts)
    ids: list[int] = []
    positions: list[int] = []
    segments: list[int] = []
    at: list[list[int]] = [[] for _ in rows]
    packing: list[tuple[int, list[int]]] = []
    for b, part in enumerate(parts):
        start = part.start
        head = len(ids) + start - 1  # the prompt's last token, which predicts the first of every completion
        ids += rows[part.members[0]].ids[:start]
        positions += range(start)
        segments += [0] * start
        stretches = [start]
        for number, i in enumerate(part.members, 1):
            # the token at k stands at len(ids) + (k − start), and what predicts it one before
            before = len(ids) - start - 1
            at[i] = [head if k == start else before + k for k in rows[i].scored]
            fed = rows[i].ids[start : len(rows[i].ids) - skipped]
            ids += fed
            positions += range(start, start + len(fed))
            segments += [number] * len(fed)
            stretches.append(len(fed))
        packing.append(
            (start, [length for length in (stretches[0] + stretches[1], *stretches[2:]) if length])
        )
        # a padded row is filled up to the longest; a packed one at its end, as a prompt of its own
        last = b == len(parts) - 1
        padding = (b + 1) * width - len(ids) if not packed else -len(ids) % fill if last else 0
        if packed and padding:
            packing.append((0, [padding]))  # nothing reads it
        ids += [0] * padding
        positions += [0] * padding
        segments += [-1] * padding
    shape = (1, -1) if packed else (len(parts), width)
    needed = _needed({place for row in at for place in row}, len(ids), fill, shares)
    told = packed or any(len(part.members) > 1 for part in parts)
    return Layout(
        torch.tensor(ids, device=device).view(shape),
        torch.tensor(needed, device=device),
        torch.tensor([place for row in at for place in row], device=device),
        torch.tensor([row.ids[k] for row in rows for k in row.scored], device=device),
        torch.tensor(positions, device=device).view(shape) if told else None,
        _visible(torch.tensor(segments, device=device).view(shape)) if told and not packed else None,
        packing if packed else None,
        sum(part.length + (1 - skipped) * len(part.members) for part in parts),
    )


def _needed(predicts: set[int], length: int, fill: int, shares: int) -> list[int]:
    """The places that predict, in order, with others that make them as many in every share."""
    span = length // shares
    own: list[list[int]] = [[] for _ in range(shares)]
    for place in sorted(predicts):
        own[place // span].append(place)
    most = max(map(len, own))
    most += -most % fill if fill else 0
    for share, places in enumerate(own):
        spare = (place for place in range(share * span, (share + 1) * span) if place not in predicts)
        places += islice(spare, most - len(places))
    return [place for places in own for place in sorted(places)]


def attended(rows: Sequence[Row], parts: Sequence[Block]) -> list[tuple[int, int]]:
    """(first, last) position of every stretch that is computed: a prompt, or a completion behind it."""
    return [
        span
        for part in parts
        for span in ((0, part.start), *((part.start, part.start + rows[i].tail - 1) for i in part.members))
    ]


def _visible(segments: Tensor) -> Tensor:
    """Which earlier tokens each token attends to: the prompt (segment 0) and its own completion, shape (B, 1,
    L, L).
    """
    length = segments.shape[1]
    # j ≤ i, and j in the prompt or in i's own completion
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    own = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return (own & causal)[:, None]
