"""Completions as paths in a tree of tokens: what a table gives each token after those before it.

A table holds log π of whole completions. Where no completion is the beginning of another, these are the
leaves of a tree, the probability of a prefix is the sum over the leaves below it, and

    log π(token | prefix) = log π(prefix, token) − log π(prefix)

is the next-token distribution of an autoregressive policy, exactly. The conditionals of a completion add up
to its log-probability. A policy whose parameters are the logits of these has nothing shared between prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import DataError


class Prefixes:
    """The trees of all prompts of a table, one behind the other.

    Node 0 of a prompt's tree is its empty prefix; a node's children are its prefixes with one token more.

    Args:
        prompts: of the table. actions: per prompt its completions, tokens between spaces. width: A, the most
            actions of a prompt.

    Attributes:
        lengths: tokens of every completion, 1 where there is none, shape (P, A).
        path: the node after each token of a completion, of T at most, −1 behind the last, shape (P·A, T).
        parent: the node before each node, that of an empty prefix itself, shape (M,).

    Raises:
        DataError: a completion is the beginning of another of its prompt, or has no token.
    """

    def __init__(self, prompts: Sequence[str], actions: Sequence[Sequence[str]], width: int) -> None:
        nodes: dict[tuple[int, tuple[str, ...]], int] = {}
        parents: list[int] = []
        split = [[tuple(text.split()) for text in texts] for texts in actions]
        self.lengths: npt.NDArray[np.int64] = np.ones((len(actions), width), np.int64)
        path = np.full((len(actions) * width, max(len(t) for texts in split for t in texts)), -1, np.int64)
        for row, texts in enumerate(split):
            leaves, inner = set(texts), {t[:k] for t in texts for k in range(len(t))}
            if odd := leaves & inner:
                raise DataError(
                    f"prompt {prompts[row]!r}: the completion {' '.join(min(odd))!r} is the beginning of "
                    "another one, or empty; tokens need completions that end in different ways"
                )
            for column, tokens in enumerate(texts):
                self.lengths[row, column] = len(tokens)
                last = -1
                for k in range(len(tokens) + 1):
                    here = nodes.setdefault((row, tokens[:k]), len(nodes))
                    if here == len(parents):
                        parents.append(here if k == 0 else last)
                    if k:
                        path[row * width + column, k - 1] = here
                    last = here
        self.path, self.parent = torch.from_numpy(path), torch.tensor(parents)

    def to(self, device: torch.device) -> Prefixes:
        """The same trees on a device."""
        self.path, self.parent = self.path.to(device), self.parent.to(device)
        return self

    def masses(self, flat: Tensor) -> Tensor:
        """log π of every prefix, shape (R, M), from those of all completions, shape (R, P·A).

        A log-sum-exp below every node around its likeliest leaf, which no underflow can lose.
        """
        leaf, depth = (self.path >= 0).nonzero(as_tuple=True)
        node = self.path[leaf, depth]
        first = depth == 0  # every completion lies below its empty prefix too
        leaf = torch.cat([leaf, leaf[first]])
        node = torch.cat([node, self.parent[node[first]]])
        values = flat[:, leaf]
        at = node.expand(len(flat), -1)
        top = torch.full((len(flat), len(self.parent)), -torch.inf, dtype=flat.dtype, device=flat.device)
        top = top.scatter_reduce(1, at, values.detach(), "amax")
        total = torch.zeros_like(top).scatter_add(1, at, (values - top.gather(1, at)).exp())
        return top + total.log()

    def conditionals(self, masses: Tensor) -> Tensor:
        """log π(last token | the prefix before it) of every prefix, 0 of an empty one, shape (R, M)."""
        return masses - masses[:, self.parent]

    def normalised(self, values: Tensor) -> Tensor:
        """Conditionals from logits of every node among its siblings, 0 of an empty prefix, (R, M)."""
        child = self.parent != torch.arange(len(self.parent), device=self.parent.device)
        at = self.parent[child].expand(len(values), -1)
        logits = values[:, child]
        top = torch.full_like(values.detach(), -torch.inf).scatter_reduce(1, at, logits.detach(), "amax")
        total = torch.zeros_like(top).scatter_add(1, at, (logits - top.gather(1, at)).exp())
        # a leaf has no children: its 0 would have an infinite gradient, which nobody asks for
        log_total = top + total.where(total > 0, 1.0).log()
        out = torch.zeros_like(values)
        out[:, child] = logits - log_total.gather(1, at)
        return out

    def leaves(self, conditional: Tensor) -> Tensor:
        """log π of all completions, sums of conditionals on their paths, −inf of absent ones, (R, P·A)."""
        on = self.path >= 0
        terms = conditional[:, self.path.clamp(min=0)].masked_fill(~on, 0.0)
        return terms.sum(-1).masked_fill(~on[:, 0], -torch.inf)

    def kl(self, there: Tensor, here: Tensor) -> Tensor:
        """KL(π′ ‖ π) of the next token after every prefix, nats, shape (R, M); from masses of both.

        The gradient reaches `here` alone.
        """
        before, now = self.conditionals(there.detach()), self.conditionals(here)
        terms = before.exp() * (before - now).masked_fill(before == -torch.inf, 0.0)
        out = torch.zeros_like(now).scatter_add(1, self.parent.expand(len(now), -1), terms)
        return out.clamp(min=0.0)

    def scores(self, conditional: Tensor, at: Tensor, kl: Tensor | None = None) -> Scores:
        """Scores of the completions at flat positions, shape (R, N, T).

        Args:
            conditional, kl: as from those methods, shape (R, M). at: positions in the table, shape (R, N).
        """
        path = self.path[at]
        mask = path >= 0
        node = path.clamp(min=0)
        logps = conditional.gather(1, node.flatten(1)).reshape(node.shape).masked_fill(~mask, 0.0)
        if kl is None:
            return Scores(logps, mask)
        token_kl = kl.gather(1, self.parent[node].flatten(1)).reshape(node.shape).masked_fill(~mask, 0.0)
        return Scores(logps, mask, token_kl)
