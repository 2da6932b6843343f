"""The data of one stage of one slice, bound to a policy: encoded once, indexed at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example, Single
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.errors import DataError
from xpo_bench.policy.base import Policy
from xpo_bench.train.batching import mismatch
from xpo_bench.train.data_parallel import ALONE, WHOLE, Piece, Processes


class Schedule:
    """The row indices of every step and run, kept small: runs that share an order share its storage.

    Args:
        orders: distinct orders, integers of shape (steps, D, N), −1 for absent rows. run_order: which of them
            each run follows, shape (runs,), or None when every run has its own.
    """

    def __init__(self, orders: np.ndarray, run_order: Sequence[int] | None, device: torch.device) -> None:
        self.orders = torch.from_numpy(orders).to(device)
        self.run_order = None if run_order is None else torch.tensor(run_order, device=device)
        self._last_step = -1
        self._last = self.orders

    def at(self, t: int) -> Tensor:
        """Indices of step `t`, shape (runs, N); a full-batch stage has one batch only."""
        t %= len(self.orders)
        if self._last_step != t:
            batch = self.orders[t]
            self._last = (batch if self.run_order is None else batch.index_select(0, self.run_order)).long()
            self._last_step = t
        return self._last

    @property
    def batch(self) -> int:
        """Rows of a step, absent ones included."""
        return int(self.orders.shape[-1])

    def used(self, places: slice = slice(None)) -> Tensor:
        """The distinct rows that some step of some run takes, at these places of it."""
        orders = self.orders[..., places]
        rows: Tensor = torch.unique(orders[orders >= 0])
        return rows.long()


@dataclass
class StageData:
    """What the steps of one stage read, for the runs of one slice.

    `schedule` is None when every step takes every example. `own_schedule` holds that of groups which have
    their own. In a `ragged` stage the runs differ in size: the schedule then has −1 for absent rows, and
    without a schedule `present` (runs, E) is 0 on the padding of the smaller runs. `against` is a snapshot of
    the stage's reference where a group declares `token_kl`, and `reference_table` its log-probabilities
    (runs, P, A) where `exact_kl` is against another policy than the initial one. `partnerless` (runs,) is
    true for runs none of whose rows found another prompt. `lengths` (runs, E) in tokens is there when each
    completion token is a row of its own. `exchanges` counts what losses have summed over processes.
    """

    algorithm: Algorithm
    runs: slice
    stacked: Mapping[str, Any]
    schedule: Schedule | None
    own_schedule: Mapping[str, Schedule]
    present: Tensor | None
    ragged: bool
    reference: Mapping[str, Scores]
    columns: Mapping[str, Tensor]
    pairs_per_step: float
    unit: float
    lengths: Tensor | None
    exact_kl: bool
    truncated: int
    device: torch.device
    processes: Processes = ALONE
    against: Any = None
    reference_table: Tensor | None = None
    partnerless: np.ndarray | None = None
    exchanges: int = 0
    _constant_totals: dict[str, Tensor] | None = None

    def step(self, policy: Policy, t: int, piece: Piece = WHOLE, grad: bool = True) -> Step:
        """Score the batch of step `t` (or a piece of it) and assemble what the loss sees."""
        rows = piece.rows
        index = self._at(t, rows)
        weight = self._weight(index)
        if piece.padding and index is not None:
            weight = torch.zeros(index.shape, device=self.device)
        trained, fixed = self.requests(t, rows)
        scores: dict[str, Scores] = {}
        for wanted, with_grad in ((trained, grad), (fixed, False)):
            asking = {
                name: request for name, request in wanted.items() if self.algorithm.groups[name].token_kl
            }
            plain = (
                {name: request for name, request in wanted.items() if name not in asking}
                if asking
                else wanted
            )
            if plain:
                scores |= policy.score(plain, grad=with_grad, runs=self.runs)
            if asking:
                scores |= policy.score(asking, grad=with_grad, runs=self.runs, against=self.against)
        reference = {
            name: take(self.reference[name], self._at(t, rows, name), scores[name].mask.shape[-1])
            for name in scores
            if name in self.reference
        }
        columns = {
            name: values if index is None else values.gather(1, index.clamp(min=0))
            for name, values in self.columns.items()
        }
        exact_kl = None
        if self.exact_kl:
            first = next(iter(self.stacked.values()))
            exact_kl = policy.exact_kl(first, index, self.runs, self.reference_table)  # type: ignore[attr-defined]
        shared = None if self.processes.alone else self._over_processes
        step = Step(scores, reference, columns, weight, self._totals(t), exact_kl, shared)
        return step if self.lengths is None else by_token(step)

    def _over_processes(self, values: Tensor) -> Tensor:
        self.exchanges += 1
        return self.processes.total(values)

    def requests(self, t: int, rows: slice | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the policy is to score at step `t`, by group: with a graph, and without."""
        wanted: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for name, group in self.algorithm.groups.items():
            if not (group.mismatched and self.exact_kl):
                wanted[not group.grad][name] = (self.stacked[name], self._at(t, rows, name))
        return wanted

    def _at(self, t: int, rows: slice | None, group: str | None = None) -> Tensor | None:
        schedule = self.own_schedule.get(group, self.schedule) if group else self.schedule
        if schedule is None:
            return None
        batch = schedule.at(t)
        return batch if rows is None else batch[:, rows]

    def _weight(self, index: Tensor | None) -> Tensor | None:
        if index is None:
            return self.present
        return (index >= 0).to(torch.float32) if self.ragged else None

    def _totals(self, t: int) -> dict[str, Tensor]:
        """Sums over the FULL step, whatever part of it is being scored."""
        if self._constant_totals is not None:
            return self._constant_totals
        index = self._at(t, None)
        weight = self._weight(index)
        if self.lengths is not None:
            tokens = self.lengths if index is None else self.lengths.gather(1, index.clamp(min=0))
            weight = tokens if weight is None else tokens * weight
        totals = {}
        for name, values in self.columns.items():
            picked = values if index is None else values.gather(1, index.clamp(min=0))
            totals[name] = (picked if weight is None else picked * weight).sum(-1, keepdim=True)
        if weight is None:
            n = index.shape[1] if index is not None else self.examples
            totals["examples"] = torch.full((1, 1), float(n), device=self.device)
        else:
            totals["examples"] = weight.sum(-1, keepdim=True)
        if self.schedule is None or not (self.columns or self.ragged or self.lengths is not None):
            self._constant_totals = totals
        return totals

    def rows_of(self, t: int) -> float:
        """Rows of the data that step `t` takes, over all runs; a single is half a pair."""
        if self.schedule is None or not self.ragged or len(self.schedule.orders) == 1:
            return self.pairs_per_step
        return float((self.schedule.at(t) >= 0).sum()) * self.unit

    @property
    def examples(self) -> int:
        """Examples per run, padding included."""
        first = next(iter(self.reference.values()), None)
        if first is not None:
            return first.token_logps.shape[1]
        stacked = next(iter(self.stacked.values()))
        return stacked.shape[1] if isinstance(stacked, Tensor) else len(stacked)


def take(scores: Scores, index: Tensor | None, width: int) -> Scores:
    """Pick rows of cached scores, shape (runs, N, width); −1 gives a masked row."""
    if index is None:
        return (
            scores
            if scores.mask.shape[-1] == width
            else Scores(scores.token_logps[..., :width], scores.mask[..., :width])
        )
    if scores.mask.shape[-1] == 1 and width == 1:
        from xpo_bench.policy.tabular import one_token

        return one_token(scores.sum.gather(1, index.clamp(min=0)))
    deep = index.clamp(min=0).unsqueeze(-1).expand(-1, -1, scores.mask.shape[-1])
    mask = scores.mask.gather(1, deep) & (index >= 0).unsqueeze(-1)
    picked = Scores(scores.token_logps.gather(1, deep)[..., :width], mask[..., :width])
    short = width - picked.mask.shape[-1]
    if short > 0:
        pad = torch.nn.functional.pad
        picked = Scores(pad(picked.token_logps, (0, short)), pad(picked.mask, (0, short)))
    return picked


def by_token(step: Step) -> Step:
    """Every completion token as a row of its own: (..., N, T) becomes (..., N·T, 1), absent tokens get weight
    0.

    `totals` are those of the full step and stay as they are.
    """
    width = max(scores.mask.shape[-1] for scores in step.policy.values())
    pad = torch.nn.functional.pad

    def rows(scores: Scores) -> Scores:
        short = width - scores.mask.shape[-1]
        token_logps, mask = (
            pad(values, (0, short)).flatten(-2).unsqueeze(-1) for values in (scores.token_logps, scores.mask)
        )
        kl = None if scores.token_kl is None else pad(scores.token_kl, (0, short)).flatten(-2).unsqueeze(-1)
        return Scores(token_logps, mask, kl)

    def spread(values: Tensor) -> Tensor:
        return values.unsqueeze(-1).expand(*values.shape, width).flatten(-2)

    policy = {g: rows(s) for g, s in step.policy.items()}
    first = next(iter(policy.values()))
    weight = first.length
    if step.weight is not None:
        weight = weight * spread(step.weight)
    return Step(
        policy,
        {g: rows(s) for g, s in step.reference.items()},
        {name: spread(values) for name, values in step.columns.items()},
        weight,
        step.totals,
        None if step.exact_kl is None else spread(step.exact_kl),
        step.shared,
    )


def bind(
    algorithm: Algorithm,
    policy: Policy,
    runs: slice,
    examples: Sequence[Sequence[Example]],
    schedules: Sequence[np.ndarray | None],
    score_reference: Any,
    token_rows: bool,
    truncate: str,
    processes: Processes = ALONE,
    unit_rows: int = 1,
    against: Any = None,
    reference_table: Tensor | None = None,
) -> StageData:
    """Encode the examples of every run, score their references once, and lay out the schedule.

    Args:
        examples: per run, as `stage_examples` returned them.
        schedules: per run, indices into the examples, (steps, N), or None for all at every step.
        score_reference: (completions, stacked, used rows) -> Scores under the stage's reference policy.
        processes: those that share a step, in units of `unit_rows`; each scores the reference of its own
            share.
        against: a snapshot of the stage's reference policy, for groups that declare `token_kl`.
        reference_table: log-probabilities of the stage's reference, shape (runs, P, A), where it is a table
            that has moved.
    """
    per_run = _per_run(algorithm, examples)
    exact_kl = policy.enumerable and any(g.mismatched for g in algorithm.groups.values())
    device = policy.parameters()[0].device
    schedule, present, ragged = _layout(schedules, [len(run) for run in examples], device)
    stacked, own, reference = {}, {}, {}
    truncated, partnerless = 0, None
    for name, group in algorithm.groups.items():
        if group.mismatched and exact_kl:
            continue
        completions = [run[name] for run in per_run]
        index = schedule
        if group.mismatched:
            completions, index = _mismatched(completions, schedules, device)
            own[name] = index
            partnerless = (index.orders < 0).all(-1).all(0).cpu().numpy()
        once = {
            id(run): policy.encode(run, truncate) for run in {id(run): run for run in completions}.values()
        }
        encoded = [once[id(run)] for run in completions]
        truncated += 0 if group.mismatched else sum(getattr(e, "truncated", 0) for e in encoded)
        stacked[name] = policy.stack(encoded)
        if group.reference:
            used = None  # a table scores everything at once
            if index is not None and not policy.enumerable:
                used = index.used() if processes.alone else index.used(processes.used(index.batch, unit_rows))
            reference[name] = score_reference(completions, stacked[name], used)
    if not stacked:
        raise DataError(f"{algorithm.name}: declares no group that is scored")
    lengths = _token_lengths(algorithm, policy, stacked) if token_rows else None
    dtype = policy.value_dtype
    columns = _columns(algorithm, examples)
    n = sum(len(run) for run in examples) if schedule is None else int((schedule.at(0) >= 0).sum())
    unit = 0.5 if isinstance(examples[0][0], Single) else 1.0
    return StageData(
        algorithm,
        runs,
        stacked,
        schedule,
        own,
        None if present is None else present.to(device, dtype),
        ragged,
        reference,
        {name: values.to(device, dtype) for name, values in columns.items()},
        n * unit,
        unit,
        None if lengths is None else lengths.to(device, dtype),
        exact_kl,
        truncated,
        device,
        processes,
        against,
        reference_table,
        partnerless,
    )


def _per_run(
    algorithm: Algorithm, examples: Sequence[Sequence[Example]]
) -> list[Mapping[str, Sequence[Completion]]]:
    """The completions of every run; runs that share their examples share them, unless the algorithm makes its
    own.
    """
    if type(algorithm).completions is not Algorithm.completions:
        return [_aligned(algorithm, run) for run in examples]
    made = {id(run): _aligned(algorithm, run) for run in {id(run): run for run in examples}.values()}
    return [made[id(run)] for run in examples]


def _aligned(algorithm: Algorithm, examples: Sequence[Example]) -> Mapping[str, Sequence[Completion]]:
    completions = algorithm.completions(examples)
    if set(completions) != set(algorithm.groups):
        raise ValueError(
            f"{algorithm.name}: completions() returned groups {sorted(completions)}, declared are {sorted(algorithm.groups)}"
        )
    for name, items in completions.items():
        if len(items) != len(examples):
            raise ValueError(
                f"{algorithm.name}: completions() returned {len(items)} items for group {name!r} and {len(examples)} examples"
            )
    return completions


def _layout(
    schedules: Sequence[np.ndarray | None], sizes: Sequence[int], device: torch.device
) -> tuple[Schedule | None, Tensor | None, bool]:
    if all(s is None for s in schedules):
        longest = max(sizes)
        if min(sizes) == longest:
            return None, None, False
        return None, torch.tensor([[i < size for i in range(longest)] for size in sizes]), True
    steps = next(len(s) for s in schedules if s is not None)
    full = [
        np.tile(np.arange(size), (steps, 1)) if s is None else s
        for s, size in zip(schedules, sizes, strict=True)
    ]
    width = max(s.shape[1] for s in full)
    ragged = min(s.shape[1] for s in full) < width or any(
        bool((s < 0).any()) for s in {id(s): s for s in full}.values()
    )
    distinct = {id(s): s for s in full}  # runs of one seed share their order
    place = {key: i for i, key in enumerate(distinct)}
    orders = np.full((steps, len(distinct), width), -1, np.result_type(*distinct.values()))
    for key, i in place.items():
        orders[:, i, : distinct[key].shape[1]] = distinct[key]
    shared = None if len(distinct) == len(full) else [place[id(s)] for s in full]
    return Schedule(orders, shared, device), None, ragged


def _mismatched(
    completions: Sequence[Sequence[Completion]], schedules: Sequence[np.ndarray | None], device: torch.device
) -> tuple[list[Sequence[Completion]], Schedule]:
    """The completions of every run under other prompts, and which of them each step takes."""
    made: list[Sequence[Completion]] = []
    orders = []
    for items, schedule in zip(completions, schedules, strict=True):
        found, index = mismatch(np.arange(len(items))[None, :] if schedule is None else schedule, items)
        made.append(
            found or [items[0]]
        )  # with no partner anywhere every row is absent; one keeps the encoder non-empty
        orders.append(index)
    return made, Schedule(np.stack(orders, 1), None, device)


def _columns(algorithm: Algorithm, examples: Sequence[Sequence[Example]]) -> dict[str, Tensor]:
    per_run = [algorithm.columns(run) for run in examples]
    longest = max(len(run) for run in examples)
    out = {}
    for name in per_run[0]:
        rows = [list(columns[name]) + [0.0] * (longest - len(columns[name])) for columns in per_run]
        out[name] = torch.tensor(rows, dtype=torch.float64)
    return out


def _token_lengths(algorithm: Algorithm, policy: Policy, stacked: Mapping[str, Any]) -> Tensor:
    """Length in tokens of every example, the same in all groups; mismatched completions are the same texts
    again.
    """
    lengths = [
        policy.lengths(items) for name, items in stacked.items() if not algorithm.groups[name].mismatched
    ]
    if any(not torch.equal(lengths[0], other) for other in lengths[1:]):
        raise DataError(
            f"{algorithm.name}: --loss-over token needs chosen and rejected of equal length in tokens in every pair; "
            "use --loss-over sequence"
        )
    return lengths[0]
