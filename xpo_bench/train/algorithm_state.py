"""What an algorithm carries from step to step, for the runs of one slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.train.data_parallel import Processes


def begin(algorithm: Algorithm, runs: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """The initial state of a stacked algorithm, each value of shape (runs, 1); empty for most algorithms."""
    return {
        name: _per_run(algorithm, name, value, runs, dtype, device)
        for name, value in algorithm.state().items()
    }


@torch.no_grad()
def next_state(algorithm: Algorithm, pieces: Sequence[Step], processes: Processes) -> dict[str, Tensor]:
    """The state after the step whose micro-batches were `pieces`.

    Raises:
        TypeError, ValueError: what `next_state` returns is no state, or another one in every process.
    """
    step = joined(pieces)
    found = algorithm.next_state(step)
    if not isinstance(found, Mapping) or set(found) != set(step.state):
        names = sorted(found) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(
            f"{algorithm.name}: next_state() returned {names}, the state is {sorted(step.state)}"
        )
    out = {
        name: _per_run(algorithm, name, found[name], len(before), before.dtype, before.device)
        for name, before in step.state.items()
    }
    if not processes.alone:
        _require_equal(algorithm, out, processes)
    return out


def detached(step: Step) -> Step:
    """The step without its graph."""
    return replace(step, policy={group: scores.detach() for group, scores in step.policy.items()})


def joined(pieces: Sequence[Step]) -> Step:
    """The micro-batches of one step as the step that they were cut from."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    weighted = any(piece.weight is not None for piece in pieces)
    return replace(
        first,
        policy={g: _rows([piece.policy[g] for piece in pieces]) for g in first.policy},
        reference={g: _rows([piece.reference[g] for piece in pieces]) for g in first.reference},
        columns={name: torch.cat([piece.columns[name] for piece in pieces], -1) for name in first.columns},
        weight=torch.cat([_weight(piece) for piece in pieces], -1) if weighted else None,
        exact_kl=None
        if first.exact_kl is None
        else torch.cat([p.exact_kl for p in pieces if p.exact_kl is not None], -1),
    )


def _rows(parts: Sequence[Scores]) -> Scores:
    """The rows of several scores one behind the other, shape (runs, N, T)."""
    width = max(scores.mask.shape[-1] for scores in parts)

    def cat(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(values, (0, width - values.shape[-1])) for values in tensors], -2)

    kls = [scores.token_kl for scores in parts if scores.token_kl is not None]
    return Scores(
        cat([scores.token_logps for scores in parts]),
        cat([scores.mask for scores in parts]),
        cat(kls) if kls else None,
    )


def _weight(step: Step) -> Tensor:
    if step.weight is not None:
        return step.weight
    mask = next(iter(step.policy.values())).mask
    return torch.ones(mask.shape[:-1], device=mask.device)


def _per_run(
    algorithm: Algorithm,
    name: str,
    value: float | Tensor,
    runs: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    if not isinstance(value, Tensor) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError(
            f"{algorithm.name}: the state {name!r} is {type(value).__name__}, expected a number or a tensor"
        )
    values = torch.as_tensor(value, dtype=dtype, device=device).detach()
    if values.shape not in ((), (1,), (1, 1), (runs, 1)):
        raise ValueError(
            f"{algorithm.name}: the state {name!r} has shape {tuple(values.shape)}, expected {(runs, 1)}"
        )
    return values.expand(runs, 1)


def _require_equal(algorithm: Algorithm, state: Mapping[str, Tensor], processes: Processes) -> None:
    """Each process steps with its own state: one that differs would be another algorithm in every process."""
    own = {name: values.flatten().tolist() for name, values in state.items()}
    of_first = processes.from_first(own)
    for name, values in own.items():
        if any(
            a != b and not (math.isnan(a) and math.isnan(b))
            for a, b in zip(values, of_first[name], strict=True)
        ):
            raise ValueError(
                f"{algorithm.name}: the state {name!r} differs between processes: "
                "next_state() sums over the rows of a step by step.all_reduce()"
            )
