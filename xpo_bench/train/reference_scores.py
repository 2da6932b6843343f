"""Scores under a task's initial policy: computed once, shared by all cells, and charged to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.policy.base import Model, Snapshot, Stacked
from xpo_bench.train.clock import Clock


@dataclass(frozen=True)
class CachedScore:
    """Log-probabilities of one completion, shape (T,), and the seconds that scoring it took."""

    token_logps: Tensor
    seconds: float


class ScoreCache(Protocol):
    """Reference scores by completion; a dictionary is one."""

    def __contains__(self, item: object, /) -> bool: ...
    def __getitem__(self, item: Completion, /) -> CachedScore: ...
    def __setitem__(self, item: Completion, score: CachedScore, /) -> None: ...


class ReferenceScorer:
    """Scores under the initial policy, each completion once, whichever cell of a task asks first.

    `uncharged_cost` adds up what the scores would have cost a cell that ran alone: the seconds of those that
    were found in the cache, and the operations of all, which are not counted where they are computed.
    """

    def __init__(self, policy: Model, initial: Snapshot, cache: ScoreCache) -> None:
        self.policy, self.initial, self.cache = policy, initial, cache
        self.uncharged_cost = (0.0, 0.0)

    def __call__(
        self, completions: Sequence[Sequence[Completion]], encoded: Stacked, used: Tensor | None
    ) -> Scores:
        """Scores of shape (1, E, T); rows that are not `used` are masked."""
        items = completions[0]
        wanted = range(len(encoded)) if used is None else used.tolist()
        missing = [i for i in wanted if items[i] not in self.cache]
        known = [self.cache[items[i]] for i in wanted if items[i] in self.cache]
        seconds, operations = self.uncharged_cost
        self.uncharged_cost = (
            seconds + sum(k.seconds for k in known),
            operations + self.policy.operations(encoded, wanted),
        )
        # processes that share the layers score together, also what only one of them lacks
        if self.policy.anywhere(bool(missing)):
            self._compute(items, encoded, missing)
        return self._arranged(len(items), {i: self.cache[items[i]].token_logps for i in wanted})

    def take_uncharged(self) -> tuple[float, float]:
        """The seconds and operations of `uncharged_cost` since the last asking."""
        cost, self.uncharged_cost = self.uncharged_cost, (0.0, 0.0)
        return cost

    def _arranged(self, count: int, found: dict[int, Tensor]) -> Scores:
        """Log-probabilities by row, as scores of `count` rows; the others are masked."""
        width = max(1, max((len(values) for values in found.values()), default=1))
        dtype, device = self.policy.value_dtype, self.policy.device
        token_logps = torch.zeros(1, count, width, dtype=dtype, device=device)
        mask = torch.zeros(1, count, width, dtype=torch.bool, device=device)
        for i, values in found.items():
            token_logps[0, i, : len(values)] = values
            mask[0, i, : len(values)] = True
        return Scores(token_logps, mask)

    def _compute(self, items: Sequence[Completion], encoded: Stacked, missing: Sequence[int]) -> None:
        clock = Clock(str(self.policy.device))
        counted = self.policy.flops
        with clock.charge("prepare_s"), self.policy.using(self.initial):
            fresh = self.policy.score_all(encoded, torch.tensor(missing, dtype=torch.long))
        self.policy.flops = counted  # every cell is charged for them by `uncharged_cost`, this one too
        for i in missing:
            length = int(fresh.mask[0, i].sum())
            self.cache[items[i]] = CachedScore(
                fresh.token_logps[0, i, :length].clone(), clock.prepare_s / len(missing)
            )


class SameForAll:
    """Scores of several runs that start from one policy: a completion is scored once for all of them."""

    def __init__(self, scorer: ReferenceScorer) -> None:
        self.scorer = scorer

    def __call__(
        self, completions: Sequence[Sequence[Completion]], stacked: Stacked, used: Tensor | None
    ) -> Scores:
        """Scores of shape (runs, E, T), E and T those of the largest run."""
        runs = [self.scorer([own], encoded, None) for own, encoded in zip(completions, stacked, strict=True)]
        shape = [max(run.mask.shape[axis] for run in runs) for axis in (1, 2)]
        token_logps, mask = (
            torch.cat([_padded(values, shape) for values in each])
            for each in zip(*((run.token_logps, run.mask) for run in runs), strict=True)
        )
        return Scores(token_logps, mask)


def _padded(values: Tensor, shape: Sequence[int]) -> Tensor:
    extra = [size - own for size, own in zip(shape, values.shape[1:], strict=True)]
    return torch.nn.functional.pad(values, (0, extra[1], 0, extra[0]))
