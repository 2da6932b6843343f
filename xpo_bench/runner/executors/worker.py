"""What a process is sent that runs groups of cells for another one, and what it does with it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xpo_bench.contract.examples import Dataset
from xpo_bench.errors import UsageError
from xpo_bench.runner import environment
from xpo_bench.runner.executors.in_process import CellBatch, LocalExecutor
from xpo_bench.runner.executors.subprocesses import unsendable
from xpo_bench.runner.plan import Cell, TaskSetup

NEWS_S = 1.0
"""Seconds between the steps that a process tells of."""


def pack(groups: Sequence[CellBatch], option: str) -> bytes:
    """Groups with the fingerprints of their rows, which stay behind.

    Raises:
        UsageError: a class that cannot be sent; `option` is what asked for other processes.
    """
    prints = [[cell.setup.data_fingerprint(cell.seed) for cell in group.cells] for group in groups]
    try:
        return pickle.dumps((list(groups), prints))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise unsendable(error, option) from error


def unpack(message: bytes, option: str) -> tuple[list[CellBatch], list[list[str]]]:
    """The groups of a message, and the fingerprint of the rows of each cell."""
    try:
        groups, prints = pickle.loads(message)
    except (AttributeError, ImportError) as error:
        raise unsendable(error, option) from error
    return groups, prints


def work(
    groups: Sequence[CellBatch],
    prints: Sequence[Sequence[str]],
    device: str,
    references: Path | None,
    facts: Mapping[str, Any],
    emit: Callable[[str, Any], None],
    rows: Mapping[str, Dataset] | None = None,
) -> None:
    """Run groups, and emit what becomes of them.

    Args:
        device: of this process. facts: for the `environment` of records. emit: takes kind and content of a
            message.
        rows: of the tasks, by fingerprint; None where they are to be read here.

    Raises:
        UsageError: the rows are not those that the run was planned with.
    """
    told = 0.0

    def step(*content: Any) -> None:
        nonlocal told
        if time.monotonic() - told > NEWS_S:
            told = time.monotonic()
            emit("step", content)

    def observe(hook: str, *, cell: Cell, **more: Any) -> None:
        emit("observe", (hook, cell.key, more))

    def finished(cell: Cell, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        emit("finished", (cell.key, record, curve))

    with environment.deterministic(bool(facts.get("deterministic"))):
        _work(groups, prints, device, rows, LocalExecutor(finished, step, observe, references, facts), emit)


def _work(
    groups: Sequence[CellBatch],
    prints: Sequence[Sequence[str]],
    device: str,
    rows: Mapping[str, Dataset] | None,
    executor: LocalExecutor,
    emit: Callable[[str, Any], None],
) -> None:
    known: dict[int, TaskSetup] = {}
    for number, (group, expected) in enumerate(zip(groups, prints, strict=True)):
        emit("start", number)
        group = CellBatch(
            tuple(
                replace(cell, setup=_at(cell.setup, device, known, rows is not None)) for cell in group.cells
            )
        )
        for cell, print_ in zip(group.cells, expected, strict=True):
            if rows is not None:
                cell.setup.take(cell.seed, rows[print_], print_)
            elif cell.setup.data_fingerprint(cell.seed) != print_:
                raise UsageError(f"task {cell.setup.name}: its data has changed since the run was planned")
        executor.run(group)
    executor.close()


def _at(setup: TaskSetup, device: str, known: dict[int, TaskSetup], rows_shipped: bool) -> TaskSetup:
    """The setup on the device of this process, one object for all cells that share it."""
    return known.setdefault(id(setup), replace(setup, device=device, rows_shipped=rows_shipped))
