"""Rows to log-probabilities: which rows go through the network together, and what that costs.

Equal rows are computed once, and only completion positions go through the output head. Completions of one
prompt share it, and on a CPU prompts share a row (`layout`), where probes have found that the model at hand
allows it. Rows that stand alone are padded on the right without an attention mask: in a causal model nothing
to the right of a token can reach it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xpo_bench.policy.language.divergence import token_kl
from xpo_bench.policy.language.flops import BACKWARD, ModelShape, Tally
from xpo_bench.policy.language.layout import Block, attended, batches, blocks, packs
from xpo_bench.policy.language.log_probs import chunk_size, target_logps
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.probes.capabilities import Capabilities
from xpo_bench.policy.language.requests import Flat
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.weights import State

TOKENS_PER_FORWARD = {"cpu": 2**10, "cuda": 2**16}
"""Padded tokens of one forward pass, by device type. A CPU gains from small ones: less padding, and they fit
its caches.
"""

IDLE = Row((0, 0), 1)
"""What a process computes while others still have rows."""


class Kind(NamedTuple):
    """What blocks of one forward pass have in common: a batch has the model's own mask or not, and one
    encoding of positions. Those that stand alone do so first.
    """

    beyond: bool
    regime: int
    together: bool


class Scorer:
    """The log-probabilities that a network gives to rows.

    Attributes:
        reach: tokens of a row that may share its prompt, at most; 0 where the model cannot.
        packed: prompts share a row. trims: the last layer is computed at completion positions alone.
        shape: what a token costs. tally: what went through the network.
        masked_cost: what a token under a mask costs per token that it is compared with, in units of what it
            costs otherwise.
        tokens_per_forward: padded tokens of one forward pass, at most (one row at least); of packed ones,
            about.
        chunk: completion positions that go through the head at a time.
    """

    def __init__(self, network: Network, able: Capabilities, tally: Tally) -> None:
        self.network, self.tally = network, tally
        self.reach, self.packed, self.trims = able.reach, able.packed, able.trims
        self.alone_beyond = able.alone_beyond
        self.shape = ModelShape.of(network.model)
        self.masked_cost = 0.0 if able.packed else self.shape.per_context / self.shape.per_token
        self.tokens_per_forward = TOKENS_PER_FORWARD.get(network.device.type, 2**14)
        self.chunk = chunk_size(network)
        weights = network.weights
        # gradients of the inputs cost one forward pass, those of the weights another, without the frozen ones
        self.backward = BACKWARD - 1 + weights.trained / weights.size

    # ------------------------------------------------------------------ which rows go together

    def batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Indices of rows for one forward pass each: those that share a prompt together, cut at
        `tokens_per_forward`.
        """
        parts = blocks(rows, self.tokens_per_forward, self.reach, self.masked_cost)
        # rows beyond the reach keep the model's own mask, which a batch has or has not
        kinds: dict[Kind, list[Block]] = {}
        for part in parts:
            kinds.setdefault(self.kind(rows, part), []).append(part)
        for kind, found in sorted(kinds.items()):
            if not kind.together:
                yield from ([*part.members] for part in found)
                continue
            cut = packs if self.packed and not kind.beyond else batches
            for batch in cut([part.length for part in found], self.tokens_per_forward):
                yield [i for b in batch for i in found[b].members]

    def kind(self, rows: Sequence[Row], part: Block) -> Kind:
        """Which other blocks a block can go with."""
        longest = max(len(rows[i].ids) for i in part.members)
        regime = self.network.positions.regime(longest)
        return Kind(longest > self.reach, regime, not self._stands_alone(rows, part))

    def _blocks(self, rows: Sequence[Row]) -> list[Block]:
        """Rows of one forward pass, gathered by prompt."""
        return blocks(
            rows, self.tokens_per_forward, self.reach if self._within(rows) else 0, self.masked_cost
        )

    def _within(self, rows: Sequence[Row]) -> bool:
        """Whether all rows are within the reach of shared prompts."""
        return self.reach > 0 and all(len(row.ids) <= self.reach for row in rows)

    def _stands_alone(self, rows: Sequence[Row], part: Block) -> bool:
        """Whether rows must have a forward pass of their own, and are computed as they stand."""
        return any(len(rows[i].ids) > self.alone_beyond for i in part.members)

    # ------------------------------------------------------------------ one forward pass

    def features(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """What predicts each completion token, and the token, by one forward pass of a batch.

        Returns:
            Features of shape `(K, width)`, input of `Network.logits`, and targets of shape `(K,)`, K the
            completion tokens of all rows, row after row.
        """
        parts = self._blocks(rows)
        alone = any(self._stands_alone(rows, part) for part in parts)
        features, targets, fed = self.network.completion_features(
            rows,
            parts,
            packed=self.packed and self._within(rows),
            whole=alone,
            trims=self.trims and not alone,
        )
        forward = self._operations(rows, parts)
        self.tally.add(fed, forward * (1 + self.backward) if torch.is_grad_enabled() else forward)
        return features, targets

    def operations(self, rows: Sequence[Row]) -> float:
        """Floating-point operations of scoring distinct rows without a graph, and no others with them."""
        batched = ([rows[b] for b in batch] for batch in self.batches(rows))
        return sum((self._operations(picked, self._blocks(picked)) for picked in batched), 0.0)

    def _operations(self, rows: Sequence[Row], parts: Sequence[Block]) -> float:
        """Floating-point operations of one forward pass."""
        whole = self.shape.forward(attended(rows, parts), sum(row.length for row in rows))
        if not self.trims or any(self._stands_alone(rows, part) for part in parts):
            return whole
        # a trimmed last layer leaves out every prompt token but the last, which predicts
        unread = sum(part.start - 1 for part in parts)
        return whole - 2.0 * float(self.network.last_layer.weights * unread)

    # ------------------------------------------------------------------ all rows

    @property
    def fill(self) -> int:
        """Positions are filled up to a multiple where rows are packed; see `attention.FILL`."""
        return int(self.network.kernel.FILL) if self.packed else 1

    def token_logps(self, rows: Sequence[Row], against: State | None = None) -> Flat:
        """Log-probabilities of all completion tokens, and the KL from a snapshot at each where one is given.

        The snapshot is run on the same rows, without a graph.
        """
        offsets = [0] * len(rows)
        found: list[tuple[Tensor, Tensor | None]] = []
        total = 0
        batched = list(self.batches(rows))
        # asked before the first pass: a pass takes all processes too, so all have to do both in one order
        missing = self._missing(len(batched))
        for batch in batched:
            for b in batch:
                offsets[b] = total
                total += rows[b].length
            found.append(self._scored([rows[b] for b in batch], against))
        found += [self._idle(against) for _ in range(missing)]
        if not found:  # still part of a graph, so that a step of absent rows has a gradient, of zero
            nothing = self.network.weights.zero()
            found = [(nothing, None if against is None else nothing)]
        kls = [kl for _, kl in found if kl is not None]
        logps = torch.cat([part for part, _ in found])
        return Flat(logps[None], torch.cat(kls)[None] if kls else None, [offsets])

    def _scored(self, rows: Sequence[Row], against: State | None) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities, and the KL from a snapshot, of one batch."""
        features, targets = self.features(rows)
        if against is None:
            return target_logps(self.network, features, targets, self.chunk, self.fill), None
        with torch.no_grad(), self.network.weights.using(against):
            theirs, _ = self.features(rows)
        return token_kl(self.network, features, theirs, targets, against, self.chunk, self.fill)

    def _missing(self, count: int) -> int:
        """Passes that another process makes beyond this one's: those that share layers need equally many."""
        sharding = self.network.sharding
        return max(1, sharding.most(count)) - count if sharding else 0

    def _idle(self, against: State | None) -> tuple[Tensor, Tensor | None]:
        """A batch that stands for nothing, while others score one of theirs, and is not counted: a zero that
        is part of the graph, shape (1,).
        """
        with self.tally.paused():
            features, _ = self.features([IDLE])
            if against is not None:
                with torch.no_grad(), self.network.weights.using(against):
                    self.features([IDLE])
        zero = features.reshape(-1)[:1].to(self.network.value_dtype) * 0
        return zero, None if against is None else zero
