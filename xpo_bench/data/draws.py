"""Two different actions and a number in [0, 1) for every row of a synthetic set, drawn together or in turn.

Both ways draw the same from the same generator and leave it in the same state. Together, the raw 64-bit words
of the PCG64 generator are read once and turned into what numpy's `choice` and `random` make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
MANY = 10_000
"""Choices among more than this many are drawn by another algorithm of numpy."""


@dataclass(frozen=True)
class Draws:
    """What was drawn for every row, each of shape (rows,): two actions by number, and a uniform number."""

    first: Ints
    second: Ints
    uniform: NDArray[np.float64]


def draw(
    rng: np.random.Generator, sizes: Sequence[int], decks: Sequence[Sequence[tuple[int, int]]], rows: int
) -> Draws:
    """Draw `rows` rows, whose prompts take turns.

    Args:
        sizes: actions per prompt. decks: pairs of actions of the first rows of each prompt, the last pair
            first; those rows draw the number alone.
    """
    bits = rng.bit_generator
    found = None
    if isinstance(bits, np.random.PCG64) and max(sizes) <= MANY:
        found = _together(bits, np.asarray(sizes), decks, rows)
    return _one_by_one(rng, sizes, decks, rows) if found is None else found


def _one_by_one(
    rng: np.random.Generator, sizes: Sequence[int], decks: Sequence[Sequence[tuple[int, int]]], rows: int
) -> Draws:
    left = [list(deck) for deck in decks]
    pairs, uniform = [], []
    for row in range(rows):
        deck = left[row % len(sizes)]
        size = sizes[row % len(sizes)]
        pairs.append(deck.pop() if deck else rng.choice(size, size=2, replace=False).tolist())
        uniform.append(rng.random())
    both = np.array(pairs, dtype=np.int64).reshape(rows, 2)
    return Draws(both[:, 0], both[:, 1], np.array(uniform, dtype=np.float64))


def _together(
    bits: np.random.PCG64, sizes: Ints, decks: Sequence[Sequence[tuple[int, int]]], rows: int
) -> Draws | None:
    """The draws of all rows from one reading of the generator; None, with the generator as it was, where
    numpy would have thrown a word away.
    """
    before = bits.state
    turn, prompt = np.divmod(np.arange(rows), len(sizes))
    dealt = turn < np.array([len(deck) for deck in decks])[prompt]
    size = sizes[prompt]
    # choice of 2 of n: Floyd's algorithm draws from n−1 and from n numbers, and a shuffle from 2; a draw from
    # one number takes no word. Then random() takes 64 bits
    bounds = np.stack([size - 1, size, np.full(rows, 2)], axis=1)
    taken = (bounds > 1) & ~dealt[:, None]
    words, uniform = _words(bits, taken.sum(1))
    drawn = np.zeros((rows, 3), dtype=np.uint64)
    # Lemire: the high half of word·n, unless the low half is below 2³² mod n
    product = words * bounds[taken].astype(np.uint64)
    if np.any((product & LOW) < (np.uint64(1) << HALF) % bounds[taken].astype(np.uint64)):
        bits.state = before
        return None
    drawn[taken] = product >> HALF
    one, other, kept = drawn.astype(np.int64).T
    other = np.where(other == one, size - 1, other)  # Floyd: a number drawn again stands for the last one
    first, second = np.where(kept == 1, one, other), np.where(kept == 1, other, one)
    for number, deck in enumerate(decks):
        at = np.arange(min(len(deck), -(-(rows - number) // len(sizes)))) * len(sizes) + number
        if len(at):
            first[at], second[at] = np.array(deck[::-1])[: len(at)].T
    return Draws(first, second, uniform)


def _words(bits: np.random.PCG64, taken: Ints) -> tuple[Words, NDArray[np.float64]]:
    """The 32-bit words that the rows take, one after the other, and the uniform number of each row.

    Args:
        taken: 32-bit words of each row, shape (rows,).
    """
    rows, count, before = len(taken), int(taken.sum()), bits.state
    # 64 bits are read for two words, of which the high one is kept until it is asked for
    kept = int(before["has_uint32"]) if count else 0
    reads = (max(count - kept, 0) + 1) // 2
    of_row = np.repeat(np.arange(rows), taken)
    # before the q-th reading for words there were q others, and a number for every earlier row
    at = np.arange(reads) + of_row[kept::2][:reads]
    raw = bits.random_raw(rows + reads)
    whole = np.ones(rows + reads, dtype=bool)
    whole[at] = False
    pairs = np.stack([raw[at] & LOW, raw[at] >> HALF], axis=1).reshape(-1)
    if kept:
        pairs = np.concatenate([np.array([before["uinteger"]], dtype=np.uint64), pairs])
    after = bits.state
    if count:
        after["has_uint32"] = int(len(pairs) > count)
    if reads:
        after["uinteger"] = int(pairs[-1])
    bits.state = after
    # random(): the upper 53 bits as a fraction
    return pairs[:count], (raw[whole] >> np.uint64(11)).astype(np.float64) * 2.0**-53
