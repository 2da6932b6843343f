"""KL divergence between a network and a reference at every token, from the full distributions of both.

The full distributions exist for a chunk of positions at a time, as for log-probabilities alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xpo_bench.policy.kl import forward_kl, reverse_kl
from xpo_bench.policy.language.log_probs import in_chunks
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.weights import State


def token_kl(
    network: Network,
    features: Tensor,
    reference: Tensor,
    targets: Tensor,
    state: State,
    size: int,
    fill: int = 1,
) -> tuple[Tensor, Tensor]:
    """Log-probability of every target, and KL(π_ref ‖ π) of the next token there, nats, shape (K,) both.

    Args:
        features: of the network, shape (K, width). reference: of the snapshot `state`, without a graph.
        size, fill: see `in_chunks`.
    """

    def chunk(mine: Tensor, theirs: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logps = network.logits(mine).log_softmax(-1)
        with torch.no_grad(), network.weights.using(state):
            others = network.logits(theirs).log_softmax(-1)
        return logps.gather(1, tokens[:, None]).squeeze(1), forward_kl(others, logps)

    logps, kl = in_chunks(chunk, size, features, reference, targets, fill=fill)
    return logps, kl


def kl_and_entropy(
    own_logits: Callable[[Tensor], Tensor],
    features: Tensor,
    reference: Tensor,
    reference_logits: Callable[[Tensor], Tensor],
    size: int,
) -> tuple[Tensor, Tensor]:
    """KL(π ‖ π_ref) and the entropy of π at every position, nats, shape (K,) both.

    Args:
        own_logits: features of the policy -> its logits. reference_logits: those of the reference -> its
            logits.
    """

    def chunk(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        logps = own_logits(mine).log_softmax(-1)
        kl = reverse_kl(logps, reference_logits(theirs).log_softmax(-1))
        return kl, torch.special.entr(logps.exp()).sum(-1)  # −p·log p, 0 where p is 0

    kl, entropy = in_chunks(chunk, size, features, reference)
    return kl, entropy
