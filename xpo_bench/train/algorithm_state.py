"""What an algorithm carries from step to step, for the runs of one block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Step
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.score_ops import joined


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
    # one state per optimizer step: it must not see into how many micro-batches the step was cut
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
