"""KL divergence from a reference at every token of a completion, from the full distributions of both.

The full distributions exist for `CausalLM.chunk` positions at a time: a larger batch is computed in chunks,
which the backward pass computes again, as for log-probabilities alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xpo_bench.policy.language.tokenize import Row

if TYPE_CHECKING:
    from xpo_bench.policy.language.causal_lm import CausalLM


def forward_kl(reference: Tensor, policy: Tensor) -> Tensor:
    """KL(π_ref ‖ π) in nats, shape (...), of log-probabilities (..., V); the gradient reaches `policy` alone.

    Tokens that the reference excludes add nothing. It is 0 to the bit where both are equal, and never below.
    """
    with torch.no_grad():
        p = reference.exp()
    ratio = (reference.detach() - policy).masked_fill(p == 0, 0.0)
    return (p * ratio).sum(-1).clamp(min=0.0)


def token_kl(policy: CausalLM, rows: Sequence[Row], against: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probability of every completion token, and the KL from a snapshot of the policy there.

    Args:
        rows: one forward pass of the policy, and one without a graph of the snapshot.

    Returns:
        Nats, shape (K,) both, K the completion tokens of all rows, row after row.
    """
    features, targets = policy.completion_features(rows)
    with torch.no_grad(), policy.using(dict(against)):
        theirs, _ = policy.completion_features(rows)
    count = len(targets)
    if extra := -count % policy.kernel.FILL if policy.packed else 0:
        features, theirs = F.pad(features, (0, 0, 0, extra)), F.pad(theirs, (0, 0, 0, extra))
        targets = F.pad(targets, (0, extra))

    def chunk(mine: Tensor, ref: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logps = policy.logits(mine).log_softmax(-1)
        with torch.no_grad(), policy.using(dict(against)):
            others = policy.logits(ref).log_softmax(-1)
        return logps.gather(1, tokens[:, None]).squeeze(1), forward_kl(others, logps)

    pieces = list(zip(*(values.split(policy.chunk) for values in (features, theirs, targets)), strict=True))
    if len(pieces) > 1 and torch.is_grad_enabled():
        found = [checkpoint(chunk, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    else:
        found = [chunk(*piece) for piece in pieces]
    logps, kl = (torch.cat(values)[:count] for values in zip(*found, strict=True))
    return logps, kl
