"""Hidden states at completion positions: what reward heads and CHES are computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.tokenize import Row


@torch.no_grad()
def mean_and_last(scorer: Scorer, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Features of rows for reward heads, shape (rows, 2·width): the mean over completion positions of what
    predicts each token, and the last one.
    """
    out: dict[int, npt.NDArray[np.float64]] = {}
    for batch in scorer.batches(rows):
        features, _ = scorer.features([rows[b] for b in batch])
        for b, part in zip(batch, features.float().split([rows[b].length for b in batch]), strict=True):
            out[b] = torch.cat([part.mean(0), part[-1]]).double().cpu().numpy()
    return np.stack([out[b] for b in range(len(rows))])


@torch.no_grad()
def summed(scorer: Scorer, rows: Sequence[Row], name: str, tell: Callable[[int], None]) -> Tensor:
    """Σ of hidden states over the completion tokens of each row, shape (rows, width), float64 on the CPU.

    Args:
        name: what errors call the model. tell: is called with the number of rows that are done.

    Raises:
        UsageError: the model's head is not one module that is called once.
    """
    sums = torch.zeros(len(rows), int(scorer.network.head.weight.shape[1]), dtype=torch.float64)
    done = 0
    for batch in scorer.batches(rows):
        for b, hidden in zip(batch, hidden_states(scorer, [rows[b] for b in batch], name), strict=True):
            sums[b] = hidden.double().sum(0).cpu()
        done += len(batch)
        tell(done)
    return sums


def hidden_states(scorer: Scorer, rows: Sequence[Row], name: str) -> list[Tensor]:
    """What enters the output head where each scored token is predicted, one tensor of shape (length, width) a
    row.

    Raises:
        UsageError: the model's head is not one module that is called once.
    """
    if scorer.network.selected:  # features are what enters the head
        features, _ = scorer.features(rows)
        return list(features.split([row.length for row in rows]))
    return [_head_inputs(scorer.network, row, name) for row in rows]


def _head_inputs(network: Network, row: Row, name: str) -> Tensor:
    """The same of a model that does something around its head (soft-capping): what the head itself reads."""
    seen: list[Tensor] = []
    hook = network.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        network.features(input_ids=torch.tensor([row.ids[:-1]], device=network.device))
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0].numel() // seen[0].shape[-1] != len(row.ids) - 1:
        raise UsageError(
            f"model {name!r}: its output head is not called once per text, so that CHES is not defined"
        )
    return seen[0].reshape(-1, seen[0].shape[-1])[[place - 1 for place in row.scored]]
