"""Binding a stage's examples to a policy: completions encoded, references scored, the order laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example, Single
from xpo_bench.contract.scoring import Scores
from xpo_bench.data.labels import tie_part
from xpo_bench.errors import DataError
from xpo_bench.policy.base import Enumeration, Policy, Snapshot, Stacked
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.reference import Scorer
from xpo_bench.train.schedule import Schedule, joint_schedule, mismatched_schedule
from xpo_bench.train.stage_data import StageData


@dataclass
class _Groups:
    """What is known of the groups that are scored, as it is found."""

    stacked: dict[str, Stacked] = field(default_factory=dict)
    reference: dict[str, Scores] = field(default_factory=dict)
    own_schedule: dict[str, Schedule] = field(default_factory=dict)
    truncated: int = 0
    partnerless: np.ndarray | None = None


def bind(
    algorithm: Algorithm,
    policy: Policy,
    *,
    runs: slice,
    examples: Sequence[Sequence[Example]],
    schedules: Sequence[np.ndarray | None],
    score_reference: Scorer,
    token_rows: bool,
    truncate: str,
    processes: Processes,
    unit_rows: int,
    against: Snapshot | None = None,
    reference_table: Tensor | None = None,
) -> StageData:
    """Encode the examples of every run, score their references once, and lay out the schedule.

    Args:
        examples: per run, as `stage_examples` returned them.
        schedules: per run, indices into the examples, (steps, N), or None for all at every step.
        score_reference: scores under the stage's reference policy.
        token_rows: each completion token is a row of the loss.
        processes: those that share a step, in units of `unit_rows`; each scores the reference of its part.
        against: a snapshot of the stage's reference policy, for groups that declare `token_kl`.
        reference_table: log-probabilities of the stage's reference, shape (runs, P, A), where it is a table
            that has moved.
    """
    device, dtype = policy.device, policy.value_dtype
    mismatched = any(group.mismatched for group in algorithm.groups.values())
    enumeration = policy if mismatched and isinstance(policy, Enumeration) else None
    schedule, present, ragged = joint_schedule(schedules, [len(run) for run in examples], device)
    found = _Groups()
    per_run = _per_run(algorithm, examples)
    for name, group in algorithm.groups.items():
        if group.mismatched and enumeration is not None:
            continue
        completions = [run[name] for run in per_run]
        index = schedule
        if group.mismatched:
            completions, index = mismatched_schedule(completions, schedules, device)
            found.own_schedule[name] = index
            found.partnerless = (index.orders < 0).all(-1).all(0).cpu().numpy()
        stacked, truncated = _encode(policy, completions, truncate)
        found.stacked[name] = stacked
        found.truncated += 0 if group.mismatched else truncated
        if group.reference:
            used = None  # a table scores everything at once
            if index is not None and not policy.enumerable:
                used = index.used(processes.used(index.batch, unit_rows))
            found.reference[name] = score_reference(completions, stacked, used)
    if not found.stacked:
        raise DataError(f"{algorithm.name}: declares no group that is scored")
    lengths = _token_lengths(algorithm, policy, found.stacked) if token_rows else None
    shares = _shares(examples)
    unit = 0.5 if isinstance(examples[0][0], Single) else 1.0
    return StageData(
        algorithm=algorithm,
        runs=runs,
        device=device,
        processes=processes,
        stacked=found.stacked,
        reference=found.reference,
        columns={name: values.to(device, dtype) for name, values in _columns(algorithm, examples).items()},
        schedule=schedule,
        own_schedule=found.own_schedule,
        ragged=ragged,
        present=None if present is None else present.to(device, dtype),
        pairs_per_step=_rows(examples, schedule, shares) * unit,
        unit=unit,
        lengths=None if lengths is None else lengths.to(device, dtype),
        shares=None if shares is None else shares.to(device, dtype),
        ties=_padded([_ties(run) for run in examples]).to(device, dtype) if algorithm.ties else None,
        enumeration=enumeration,
        reference_table=reference_table,
        against=against,
        truncated=found.truncated,
        partnerless=found.partnerless,
    )


def _encode(
    policy: Policy, completions: Sequence[Sequence[Completion]], truncate: str
) -> tuple[Stacked, int]:
    """The completions of every run as one object, and how many of them were truncated."""
    distinct = {id(run): run for run in completions}  # runs of one seed share their lists
    once = {key: policy.encode(run, truncate) for key, run in distinct.items()}
    encoded = [once[id(run)] for run in completions]
    truncated = 0 if policy.enumerable else sum(each.truncated for each in encoded)
    return policy.stack(encoded), truncated


def _per_run(
    algorithm: Algorithm, examples: Sequence[Sequence[Example]]
) -> list[Mapping[str, Sequence[Completion]]]:
    """The completions of every run; runs that share their examples share them.

    An algorithm with a `completions` of its own is asked once per run: it may answer differently each time.
    """
    if type(algorithm).completions is not Algorithm.completions:
        return [_aligned(algorithm, run) for run in examples]
    distinct = {id(run): run for run in examples}
    made = {key: _aligned(algorithm, run) for key, run in distinct.items()}
    return [made[id(run)] for run in examples]


def _aligned(algorithm: Algorithm, examples: Sequence[Example]) -> Mapping[str, Sequence[Completion]]:
    completions = algorithm.completions(examples)
    if set(completions) != set(algorithm.groups):
        raise ValueError(
            f"{algorithm.name}: completions() returned groups {sorted(completions)}, "
            f"declared are {sorted(algorithm.groups)}"
        )
    for name, items in completions.items():
        if len(items) != len(examples):
            raise ValueError(
                f"{algorithm.name}: completions() returned {len(items)} items for group {name!r} "
                f"and {len(examples)} examples"
            )
    return completions


def _columns(algorithm: Algorithm, examples: Sequence[Sequence[Example]]) -> dict[str, Tensor]:
    per_run = [algorithm.columns(run) for run in examples]
    return {name: _padded([columns[name] for columns in per_run]) for name in per_run[0]}


def _padded(numbers: Sequence[Sequence[float]]) -> Tensor:
    """Numbers per example of every run, shape (runs, E), 0 behind the examples of smaller runs."""
    longest = max(map(len, numbers))
    rows = [list(values) + [0.0] * (longest - len(values)) for values in numbers]
    return torch.tensor(rows, dtype=torch.float64)


def _ties(examples: Sequence[Example]) -> list[float]:
    """1 for examples that are a tie and nothing else."""
    return [float(tie_part(e) == 1.0) for e in examples]


def _shares(examples: Sequence[Sequence[Example]]) -> Tensor | None:
    """The part of a row of the data that every example is; None where each is a whole one."""
    distinct = {id(run): run for run in examples}
    if all(e.share == 1.0 for run in distinct.values() for e in run):
        return None
    return _padded([[e.share for e in run] for run in examples])


def _rows(examples: Sequence[Sequence[Example]], schedule: Schedule | None, shares: Tensor | None) -> float:
    """Examples of the first step of all runs; with soft labels, rows of the data that they are."""
    if shares is None:
        return sum(map(len, examples)) if schedule is None else int((schedule.at(0) >= 0).sum())
    if schedule is None:
        return float(shares.sum())
    first = schedule.at(0).cpu()
    return float((shares.gather(1, first.clamp(min=0)) * (first >= 0)).sum())


def _token_lengths(algorithm: Algorithm, policy: Policy, stacked: Mapping[str, Stacked]) -> Tensor:
    """Tokens of every example, the same in all groups; mismatched completions are the same texts again."""
    lengths = [
        policy.lengths(items) for name, items in stacked.items() if not algorithm.groups[name].mismatched
    ]
    if any(not torch.equal(lengths[0], other) for other in lengths[1:]):
        raise DataError(
            f"{algorithm.name}: --loss-over token needs chosen and rejected of equal length in tokens "
            "in every pair; use --loss-over sequence"
        )
    return lengths[0]
