"""A training step as a plain loop makes it: rows padded to a rectangle, one forward pass of the model, log
softmax, gather. It is what the suite's own step is timed against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from xpo_bench.policy.language.layout import batches
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.requests import pick
from xpo_bench.policy.language.scoring import IDLE, Scorer
from xpo_bench.policy.language.tokenize import Encoded, Row

LOGITS = 2**27
"""Logits of a forward pass, at most (512 MiB in float32): a plain loop has them all at once."""


def plain_losses(
    scorer: Scorer, requests: Mapping[str, tuple[Encoded, Tensor | None]]
) -> list[Callable[[], Tensor]]:
    """Losses of the distinct rows of a request, −Σ log π over completion tokens: one per forward pass,
    computed when it is called. What does not depend on the weights is made beforehand.
    """
    network = scorer.network
    (rows,) = pick({group: ([encoded], index) for group, (encoded, index) in requests.items()}, 1).rows
    if network.sharding:  # processes that share the layers make equally many forward passes
        cut = [rows or [IDLE]]
    else:
        limit = min(scorer.tokens_per_forward, LOGITS // network.vocabulary)
        cut = [[rows[b] for b in batch] for batch in batches([len(row.ids) for row in rows], limit)]
    return [partial(_loss, network, *_padded(part, network.device)) for part in cut]


def _padded(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of shape (B, L), what they predict, and which of that is scored, of shape (B, L−1)."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=device)
    scored = torch.zeros(ids.shape, dtype=torch.bool)
    for b, row in enumerate(rows):
        scored[b, row.scored] = True
    return ids, ids[:, 1:, None], scored[:, 1:].to(device)


def _loss(network: Network, ids: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
    logits = network.logits(network.features(input_ids=ids)[0])
    logps = torch.log_softmax(logits[:, :-1], -1).gather(-1, targets).squeeze(-1)
    return -logps.masked_fill(~scored, 0.0).sum()
