"""Which rows each step sees: drawn ahead per seed, the same for every algorithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpo_bench.contract.examples import Completion

WINDOW = 32
"""Batches whose rows are sorted by length together, about."""


def row_schedule(
    rows: int, batch: int, steps: int, sampling: str, rng: np.random.Generator
) -> np.ndarray | None:
    """Row indices of shape (steps, batch), or None when every step takes every row once.

    `epochs` concatenates seeded permutations and cuts them into batches; `replacement` draws independently.
    The integers are as small as the rows allow: a grid holds millions of them.
    """
    small = np.int16 if rows <= np.iinfo(np.int16).max else np.int32
    if sampling == "replacement":
        return rng.integers(rows, size=(steps, batch)).astype(small)
    if batch >= rows:
        return None
    # ⌈steps·batch / rows⌉ epochs back to back: a batch may span two of them, and no row is ever left out
    order = np.empty((-(-steps * batch // rows), rows), small)
    for epoch in order:
        epoch[:] = rng.permutation(rows)
    return order.reshape(-1)[: steps * batch].reshape(steps, batch)


def token_schedule(lengths: Sequence[int], tokens: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Batches of at most `tokens` tokens (one row at least): indices (steps, N), −1 where one is smaller.

    Each epoch is a seeded permutation. Its rows are sorted by length within windows of about `WINDOW`
    batches, so that rows of one batch are about equally long, and the batches of an epoch come in random
    order.
    """
    if min(lengths) < 0:
        raise ValueError("lengths below 0")
    # rows per batch are about tokens / mean length
    window = max(1, round(WINDOW * tokens * len(lengths) / max(1, sum(lengths))))
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = rng.permutation(len(lengths))
        epoch: list[list[int]] = []
        for start in range(0, len(order), window):
            room = 0
            for row in sorted(order[start : start + window], key=lambda i: lengths[i]):
                if lengths[row] > room:
                    epoch.append([])
                    room = tokens
                epoch[-1].append(int(row))
                room -= lengths[row]
        batches += (epoch[i] for i in rng.permutation(len(epoch)))
    out = np.full((steps, max(map(len, batches[:steps]))), -1, np.int32)
    for batch, rows in zip(out, batches, strict=False):
        batch[: len(rows)] = rows
    return out


def mismatch(schedule: np.ndarray, completions: Sequence[Completion]) -> tuple[list[Completion], np.ndarray]:
    """Pair each completion of a batch with the prompt of another row whose prompt text differs.

    The partner is the nearest following row of the batch (cyclically) with another prompt, else the
    nearest such row of the data; −1 where all prompts are equal. No row can keep its own prompt, and
    the two halves of a pair share a prompt, so they are never partners.

    Args:
        schedule: indices into `completions`, shape (steps, N), −1 for absent rows.

    Returns:
        the distinct mismatched completions, and indices into them of the schedule's shape.
    """
    prompts = [c.prompt for c in completions]
    found: dict[Completion, int] = {}
    out = np.full_like(schedule, -1)
    for step, batch in enumerate(schedule):
        present = [int(i) for i in batch if i >= 0]
        for position, row in enumerate(batch):
            if row < 0:
                continue
            # a batch is a ring, as in KTO's shift by one; rows of the same prompt are stepped over
            ring = present[position + 1 :] + present[:position]
            donor = next((prompts[j] for j in ring if prompts[j] != prompts[row]), None)
            if donor is None:
                everything = prompts[row + 1 :] + prompts[:row]
                donor = next((p for p in everything if p != prompts[row]), None)
            if donor is not None:
                pair = Completion(donor, completions[row].text)
                out[step, position] = found.setdefault(pair, len(found))
    return list(found), out
