"""From what is asked to distinct rows, and from flat log-probabilities back to what was asked.

Groups of an algorithm share completions, and batches draw a row twice. A row is computed once, wherever it
occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.policy.language.tokenize import Encoded, Row

Requests = Mapping[str, tuple[Sequence[Encoded], Tensor | None]]
"""Group -> (encoded completions of every run, index of shape (runs, N)); −1 is absent, None takes all."""


class Picked(NamedTuple):
    """What is to be computed.

    Args:
        rows: distinct rows of every run. places: group -> for every run, the row of each example, −1 where it
            is absent.
    """

    rows: list[list[Row]]
    places: dict[str, list[list[int]]]


class Flat(NamedTuple):
    """Numbers of all scored tokens, one row of the tensors for every run.

    Args:
        logps: nats, shape (runs, K). token_kl: the same of the KL, where it was asked for.
        offsets: for every run, where the tokens of each row begin.
    """

    logps: Tensor
    token_kl: Tensor | None
    offsets: list[list[int]]


def pick(requests: Requests, runs: int) -> Picked:
    """The distinct rows of a request, in the order of their first use."""
    known: list[dict[Row, int]] = [{} for _ in range(runs)]
    places: dict[str, list[list[int]]] = {}
    for group, (stacked, index) in requests.items():
        widest = max(map(len, stacked))
        wanted = (
            index.tolist()
            if index is not None
            else [[*range(len(encoded)), *[-1] * (widest - len(encoded))] for encoded in stacked]
        )
        places[group] = [
            [-1 if (row := encoded.row(i)) is None else found.setdefault(row, len(found)) for i in at]
            for encoded, found, at in zip(stacked, known, wanted, strict=True)
        ]
    return Picked([list(found) for found in known], places)


def arrange(flat: Flat, picked: Picked) -> dict[str, Scores]:
    """Scores of every group, shape (runs, N, T), T its longest completion, at least 1.

    The mask is true on completion tokens (EOS included), all false for absent and dropped rows.
    """
    return {group: _arranged(flat, picked.rows, places) for group, places in picked.places.items()}


def _arranged(flat: Flat, rows: Sequence[Sequence[Row]], places: Sequence[Sequence[int]]) -> Scores:
    lengths = tuple(
        tuple(known[i].length if i >= 0 else 0 for i in at) for known, at in zip(rows, places, strict=True)
    )
    begins = tuple(
        tuple(begin[i] if i >= 0 else 0 for i in at) for begin, at in zip(flat.offsets, places, strict=True)
    )
    at, mask, full = _index(lengths, begins, flat.logps.device)

    def gathered(values: Tensor) -> Tensor:
        found = values.gather(1, at).view(mask.shape)
        return found if full else found.masked_fill(~mask, 0.0)

    logps = gathered(flat.logps)
    scores = Scores(logps, mask, None if flat.token_kl is None else gathered(flat.token_kl))
    scores.__dict__["sum"] = logps.sum(-1)  # what stands off the mask is 0 already
    return scores


@lru_cache(maxsize=4)
def _index(
    lengths: tuple[tuple[int, ...], ...], begins: tuple[tuple[int, ...], ...], device: torch.device
) -> tuple[Tensor, Tensor, bool]:
    """Where the tokens of each example stand in a run, shape (runs, N·T), which of them there are, shape
    (runs, N, T), and whether all are.
    """
    length, begin = (torch.tensor(n, dtype=torch.long, device=device)[..., None] for n in (lengths, begins))
    longest = max(1, max((n for run in lengths for n in run), default=1))
    t = torch.arange(longest, device=device)
    mask = t < length
    # token t of example n is number begin_n + t of its run; what lies off the mask reads any number, and is 0
    at = (begin + t).masked_fill(~mask, 0)
    return at.flatten(1), mask, all(n == longest for run in lengths for n in run)
