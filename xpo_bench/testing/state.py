"""Checks of an algorithm's state from step to step. The first line of a docstring states its property."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Step
from xpo_bench.testing.steps import (
    make_step,
    pick,
    side_by_side,
    size,
    tensors_of,
    views,
    with_absent_rows,
    with_junk_off_mask,
    with_state,
)
from xpo_bench.testing.variations import float_fields, three_runs
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable, require, require_close
from xpo_bench.testing.world import Drifted

State = Mapping[str, Tensor]


def _needs_state(algorithm: Algorithm) -> None:
    if not algorithm.state():
        raise NotApplicable("it keeps no state")


def well_formed(algorithm: Algorithm) -> None:
    """The initial state is a finite number per name; the next one has its names and a number per run."""
    _needs_state(algorithm)
    initial = algorithm.state()
    for name, value in initial.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(
            isinstance(name, str) and number,
            f"state() gives {name!r}: {type(value).__name__}, not a name and a number",
        )
        require(math.isfinite(float(value)), f"the initial state {name!r} is {value}")
    require(json.loads(json.dumps(dict(initial))) == dict(algorithm.state()), "two calls of state() differ")
    for view in views(algorithm):
        step = make_step(algorithm, view)
        found = algorithm.next_state(step)
        require(isinstance(found, Mapping), f"next_state() returns {type(found).__name__}")
        require(
            set(found) == set(initial),
            f"next_state() returns {sorted(found)}, the state is {sorted(initial)}",
        )
        for name, values in found.items():
            require(isinstance(values, Tensor), f"next_state() gives {name!r} as {type(values).__name__}")
            require(
                values.shape == (1,),
                f"the next state {name!r} has shape {tuple(values.shape)} without runs, expected (1,)",
            )
            require(bool(torch.isfinite(values).all()), f"the next state {name!r} is {values.tolist()}")


def is_read(algorithm: Algorithm) -> None:
    """Every name of the state is read, by the loss or by the next state of another name, and changes."""
    _needs_state(algorithm)
    steps = [make_step(algorithm, view) for view in views(algorithm)]
    for name in algorithm.state():
        changes = any(not torch.equal(_next(algorithm, step)[name], step.state[name]) for step in steps)
        require(changes, f"next_state() never changes {name!r}")
        require(any(_reads(algorithm, step, name) for step in steps), f"nothing reads the state {name!r}")


def _reads(algorithm: Algorithm, step: Step, name: str) -> bool:
    # half a unit, and a whole one for a counter of steps
    return any(
        _differs(algorithm, step, name, replace(step, state={**step.state, name: step.state[name] + more}))
        for more in (0.5, 1.0)
    )


def _differs(algorithm: Algorithm, step: Step, name: str, other: Step) -> bool:
    if not torch.equal(algorithm.loss(other), algorithm.loss(step)):
        return True
    before, after = _next(algorithm, step), _next(algorithm, other)
    return any(not torch.equal(before[k], after[k]) for k in before if k != name)


def _next(algorithm: Algorithm, step: Step) -> dict[str, Tensor]:
    """The state after a step, from tensors of its own."""
    mine = replace(step, state={name: values.clone() for name, values in step.state.items()})
    return {name: values.detach() for name, values in algorithm.next_state(mine).items()}


def pure(algorithm: Algorithm) -> None:
    """next_state() gives the same bits twice, and leaves the step as it found it."""
    _needs_state(algorithm)
    for view in views(algorithm):
        step = make_step(algorithm, view)
        before = {name: tensor.detach().clone() for name, tensor in tensors_of(step).items()}
        first = {name: values.detach().clone() for name, values in algorithm.next_state(step).items()}
        for name, tensor in tensors_of(step).items():
            require(torch.equal(before[name], tensor.detach()), f"next_state() changes {name} in place")
        for name, values in algorithm.next_state(step).items():
            require(
                torch.equal(first[name], values.detach()), f"two calls of next_state() differ in {name!r}"
            )


def runs_axis(algorithm: Algorithm) -> None:
    """Runs side by side, with float fields of shape (runs, 1), get the state that each gets alone."""
    _needs_state(algorithm)
    for view in views(algorithm):
        runs = three_runs(algorithm)
        steps = [
            with_state(run, make_step(algorithm, replace(view, policy=Drifted(0.9, seed))), view.later)
            for seed, run in enumerate(runs)
        ]
        columns = {
            name: torch.tensor([[getattr(run, name)] for run in runs], dtype=torch.float64)
            for name in float_fields(algorithm)
        }
        stacked = replace(algorithm, **columns)
        for name, got in stacked.next_state(side_by_side(steps)).items():
            alone = torch.stack([_next(run, step)[name] for run, step in zip(runs, steps, strict=True)])
            require_close(
                got, alone, f"the state {name!r} of runs side by side differs from that of each alone"
            )


def whole_step(algorithm: Algorithm) -> None:
    """Row order, absent rows, scores off the mask and rows of other processes change no state."""
    _needs_state(algorithm)
    for view in views(algorithm):
        step = make_step(algorithm, view)
        n = size(step)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        expected = _next(algorithm, step)
        _require_same(_next(algorithm, pick(step, order)), expected, "the order of the examples changes")
        _require_same(_next(algorithm, with_absent_rows(step)), expected, "rows of weight 0 change")
        _require_same(
            _next(algorithm, with_junk_off_mask(step, -torch.inf)), expected, "-inf off the mask changes"
        )
        shares = [pick(step, slice(0, n // 3)), with_absent_rows(pick(step, slice(n // 3, n)))]
        for found in _in_processes(algorithm, shares):
            _require_same(found, expected, "rows that lie in two processes change")


def _require_same(got: State, expected: State, what: str) -> None:
    for name, values in expected.items():
        require_close(got[name], values, f"{what} the state {name!r}")


class _Short(Exception):
    """A sum over processes is asked for to which not all have contributed yet."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values


@dataclass
class _Ledger:
    """Hands out the sums over processes that are known, in their order."""

    totals: Sequence[Tensor]
    asked: int = 0

    def __call__(self, values: Tensor) -> Tensor:
        if self.asked == len(self.totals):
            raise _Short(values)
        self.asked += 1
        return self.totals[self.asked - 1]


def _in_processes(algorithm: Algorithm, shares: Sequence[Step]) -> list[State]:
    """The state in each of the processes that hold these parts: run again until every sum is known."""
    totals: list[Tensor] = []
    while True:
        found: list[State] = []
        short: list[Tensor] = []
        for share in shares:
            try:
                found.append(_next(algorithm, replace(share, shared=_Ledger(totals))))
            except _Short as more:
                short.append(more.values)
        if not short:
            return found
        if found or any(values.shape != short[0].shape for values in short):
            raise CheckFailed("next_state() calls step.all_reduce() in one process as it does not in another")
        totals.append(torch.stack(short).sum(0))
