"""The KL divergence of distributions that are known in full."""

from __future__ import annotations

import torch
from torch import Tensor


def forward_kl(reference: Tensor, policy: Tensor) -> Tensor:
    """KL(π_ref ‖ π) in nats, shape (...), of log-probabilities (..., V); the gradient reaches `policy` alone.

    Tokens that the reference excludes add nothing. It is 0 to the bit where both are equal, and never below.
    """
    with torch.no_grad():
        p = reference.exp()
    # p·(log p − log q) would be 0·(−∞) = NaN where the reference excludes a token
    ratio = (reference.detach() - policy).masked_fill(p == 0, 0.0)
    return (p * ratio).sum(-1).clamp(min=0.0)  # Σ p·log(p/q) ≥ 0; rounding can put it just below


def reverse_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(π ‖ π_ref) in nats, shape (...), of log-probabilities (..., V)."""
    p = policy.exp()
    ratio = (policy - reference).masked_fill(p == 0, 0.0)
    return (p * ratio).sum(-1).clamp(min=0.0)
