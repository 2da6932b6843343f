"""The data of one stage of one run block, bound to a policy: encoded once, indexed at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.policy.base import Enumeration, Policy, Request, Snapshot, Stacked
from xpo_bench.train.data_parallel import WHOLE, Piece, Processes
from xpo_bench.train.schedule import Schedule
from xpo_bench.train.score_ops import by_token, take

Requests = dict[str, Request]


@dataclass(kw_only=True)
class StageData:
    """What the steps of one stage read, for the runs of one block. `binding.bind` makes it.

    Attributes:
        stacked: the encoded completions of every group that is scored.
        reference: their scores under the stage's reference, of the groups that declare it.
        columns: the numbers per example, shape (runs, E).
        schedule: None when every step takes every example. own_schedule: that of groups which have their own.
        ragged: the runs differ in size, or rows are absent: the schedule then has −1 for absent rows.
        present: 1 for examples, 0 for the padding of smaller runs, shape (runs, E); without a schedule only.
        pairs_per_step: rows of the data in a step of full size. unit: of one row; a single is half a pair.
        shares: the part of a row of the data that every example is, shape (runs, E); None where each is one.
        ties: 1 for examples on which neither side is better, shape (runs, E), of algorithms that ask for it.
        lengths: tokens of every example, shape (runs, E), where each completion token is a row of its own.
        enumeration: the policy, where a mismatched group is replaced by its exact KL.
        reference_table: log π_ref, shape (runs, P, A), where that KL is against a policy that has moved.
        against: a snapshot of the stage's reference, where a group declares `token_kl`.
        truncated: completions of which something was truncated.
        partnerless: runs none of whose rows found another prompt, shape (runs,).
        exchanges: how many sums over processes the losses have asked for.
    """

    algorithm: Algorithm
    runs: slice
    device: torch.device
    processes: Processes
    stacked: Mapping[str, Stacked]
    reference: Mapping[str, Scores]
    columns: Mapping[str, Tensor]
    schedule: Schedule | None
    own_schedule: Mapping[str, Schedule]
    ragged: bool
    present: Tensor | None
    pairs_per_step: float
    unit: float
    lengths: Tensor | None = None
    shares: Tensor | None = None
    ties: Tensor | None = None
    enumeration: Enumeration | None = None
    reference_table: Tensor | None = None
    against: Snapshot | None = None
    truncated: int = 0
    partnerless: np.ndarray | None = None
    exchanges: int = 0
    _constant_totals: dict[str, Tensor] | None = field(default=None, repr=False)
    _last_referred: dict[str, tuple[Tensor | None, int, Scores]] = field(default_factory=dict, repr=False)

    # ---------------------------------------------------------------- a step

    def step(self, policy: Policy, t: int, piece: Piece = WHOLE, grad: bool = True) -> Step:
        """Score the batch of step `t` (or a piece of it) and assemble what the loss sees."""
        rows = piece.rows
        index = self._at(t, rows)
        weight = self._weight(index)
        if piece.padding and index is not None:
            weight = torch.zeros(index.shape, device=self.device)
        scores = self._scores(policy, t, rows, grad)
        reference = {
            name: self._referred(name, self._at(t, rows, name), scores[name].mask.shape[-1])
            for name in scores
            if name in self.reference
        }
        columns = {name: _picked(values, index) for name, values in self.columns.items()}
        exact_kl = None
        if self.enumeration is not None:
            first = next(iter(self.stacked.values()))
            exact_kl = self.enumeration.exact_kl(first, index, self.runs, self.reference_table)
        step = Step(
            policy=scores,
            reference=reference,
            columns=columns,
            weight=weight,
            totals=self._totals(t),
            exact_kl=exact_kl,
            shared=None if self.processes.alone else self._over_processes,
            ties=None if self.ties is None else _picked(self.ties, index),
        )
        return step if self.lengths is None else by_token(step)

    def _referred(self, name: str, index: Tensor | None, width: int) -> Scores:
        """Reference scores of the rows of a step; those of the last one where it took the same."""
        known = self._last_referred.get(name)
        if known is not None and known[0] is index and known[1] == width:
            return known[2]
        found = take(self.reference[name], index, width, absent=self.ragged or name in self.own_schedule)
        self._last_referred[name] = index, width, found
        return found

    def _scores(self, policy: Policy, t: int, rows: slice | None, grad: bool) -> dict[str, Scores]:
        """The policy's scores by group: groups that are trained, then those that carry no gradient.

        A group that declares `token_kl` runs the reference beside the policy, which the others need not pay.
        """
        scores: dict[str, Scores] = {}
        for wanted, with_grad in zip(self.requests(t, rows), (grad, False), strict=True):
            groups = self.algorithm.groups
            plain = {name: request for name, request in wanted.items() if not groups[name].token_kl}
            asking = {name: request for name, request in wanted.items() if groups[name].token_kl}
            if plain:
                scores |= policy.score(plain, grad=with_grad, runs=self.runs)
            if asking:
                scores |= policy.score(asking, grad=with_grad, runs=self.runs, against=self.against)
        return scores

    def requests(self, t: int, rows: slice | None = None) -> tuple[Requests, Requests]:
        """What the policy is to score at step `t`, by group: with a graph, and without."""
        trained: Requests = {}
        fixed: Requests = {}
        for name, group in self.algorithm.groups.items():
            if not (group.mismatched and self.enumeration is not None):
                wanted = trained if group.grad else fixed
                wanted[name] = (self.stacked[name], self._at(t, rows, name))
        return trained, fixed

    def plain_requests(self, t: int, rows: slice | None = None) -> Requests:
        """Of those with a graph, the groups that do not run the reference beside the policy."""
        groups = self.algorithm.groups
        return {name: r for name, r in self.requests(t, rows)[0].items() if not groups[name].token_kl}

    def _over_processes(self, values: Tensor) -> Tensor:
        self.exchanges += 1
        return self.processes.total(values)

    # ---------------------------------------------------------------- rows

    def _at(self, t: int, rows: slice | None, group: str | None = None) -> Tensor | None:
        schedule = self.own_schedule.get(group, self.schedule) if group else self.schedule
        if schedule is None:
            return None
        batch = schedule.at(t)
        return batch if rows is None else batch[:, rows]

    def _weight(self, index: Tensor | None) -> Tensor | None:
        """The part of a row of the data for examples, 0 for absent ones; None where all are whole rows."""
        there = self.present
        if index is not None:
            there = (index >= 0).to(torch.float32) if self.ragged else None
        if self.shares is None:
            return there
        share = _picked(self.shares, index)
        return share if there is None else share * there

    def _totals(self, t: int) -> dict[str, Tensor]:
        """Sums over the FULL step, whatever part of it is being scored.

        The loss of a step is Σ_i w_i·ℓ_i / Σ_i w_i. Micro-batches and processes each sum over their own rows
        and divide by the denominator of the whole step, so that their losses and gradients add up to those of
        the step exactly, however it is cut.
        """
        if self._constant_totals is not None:
            return self._constant_totals
        index = self._at(t, None)
        weight = self._weight(index)
        if self.lengths is not None:  # rows are tokens: an example counts as often as it has tokens
            tokens = _picked(self.lengths, index)
            weight = tokens if weight is None else tokens * weight
        totals = {}
        for name, values in self.columns.items():
            picked = _picked(values, index)
            totals[name] = (picked if weight is None else picked * weight).sum(-1, keepdim=True)
        if weight is None:
            n = index.shape[1] if index is not None else self.examples
            totals["examples"] = torch.full((1, 1), float(n), device=self.device)
        else:
            totals["examples"] = weight.sum(-1, keepdim=True)
        # without columns, absent rows or lengths all steps have the same number of rows, and nothing else
        varies = self.columns or self.ragged or self.lengths is not None or self.shares is not None
        if self.schedule is None or not varies:
            self._constant_totals = totals
        return totals

    def rows_of(self, t: int) -> float:
        """Rows of the data that step `t` takes, over all runs; a single is half a pair."""
        if self.schedule is None or not self.ragged or len(self.schedule.orders) == 1:
            return self.pairs_per_step
        index = self.schedule.at(t)
        rows = index >= 0 if self.shares is None else (index >= 0) * _picked(self.shares, index)
        return float(rows.sum()) * self.unit

    @property
    def examples(self) -> int:
        """Examples per run, padding included."""
        first = next(iter(self.reference.values()), None)
        if first is not None:
            return first.token_logps.shape[1]
        stacked = next(iter(self.stacked.values()))
        return stacked.shape[1] if isinstance(stacked, Tensor) else len(stacked)


def _picked(values: Tensor, index: Tensor | None) -> Tensor:
    """Values of shape (runs, E) at the rows of a step; absent rows show the first one, and have weight 0."""
    return values if index is None else values.gather(1, index.clamp(min=0))
