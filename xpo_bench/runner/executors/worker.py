"""What a process is sent that runs batches of cells for another one, and what it does with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xpo_bench.contract.examples import Dataset
from xpo_bench.errors import UsageError
from xpo_bench.runner import environment
from xpo_bench.runner.executors.groups import CellBatch
from xpo_bench.runner.executors.in_process import LocalExecutor
from xpo_bench.runner.executors.placement import ExecutionFacts
from xpo_bench.runner.executors.subprocesses import packed, unpacked
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import Curve, Record
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.train.items import Items

NEWS_S = 1.0
"""Seconds between the steps that a process reports."""


def pack(batches: Sequence[CellBatch], option: str) -> bytes:
    """Batches with the fingerprints of their rows, which stay behind.

    Raises:
        UsageError: a class that cannot be sent; `option` is what asked for other processes.
    """
    prints = [[cell.setup.data_fingerprint(cell.seed) for cell in batch.cells] for batch in batches]
    classes = (type(cell.algorithm) for batch in batches for cell in batch.cells)
    return packed((list(batches), prints), classes, option)


def unpack(message: bytes, option: str) -> tuple[list[CellBatch], list[list[str]]]:
    """The batches of a message, and the fingerprint of the rows of each cell."""
    batches, prints = unpacked(message, option)
    return batches, prints


def work(
    batches: Sequence[CellBatch],
    prints: Sequence[Sequence[str]],
    device: str,
    references: Path | None,
    facts: ExecutionFacts,
    emit: Callable[[str, object], None],
    rows: Mapping[str, Dataset] | None = None,
) -> None:
    """Run batches, and emit what becomes of them.

    Args:
        device: of this process. facts: for the `environment` of records. emit: takes kind and content of a
            message.
        rows: of the tasks, by fingerprint; None where they are to be read here.

    Raises:
        UsageError: the rows are not those that the run was planned with.
    """
    last = 0.0

    def step(*content: object) -> None:
        nonlocal last
        # a message costs more than a step of a small policy: progress is told now and then
        if time.monotonic() - last > NEWS_S:
            last = time.monotonic()
            emit("step", content)

    def observe(hook: str, *, cell: Cell, **more: object) -> None:
        emit("observe", (hook, cell.key, more))

    def finished(cell: Cell, record: Record, curve: Curve, items: Items | None) -> None:
        emit("finished", (cell.key, record, curve, None if items is None else items.plain()))

    with environment.deterministic(bool(facts.get("deterministic"))):
        _work(batches, prints, device, rows, LocalExecutor(finished, step, observe, references, facts), emit)


def _work(
    batches: Sequence[CellBatch],
    prints: Sequence[Sequence[str]],
    device: str,
    rows: Mapping[str, Dataset] | None,
    executor: LocalExecutor,
    emit: Callable[[str, object], None],
) -> None:
    known: dict[int, TaskSetup] = {}  # cells that shared a setup share one here, and with it a loaded model
    for number, (batch, expected) in enumerate(zip(batches, prints, strict=True)):
        emit("start", number)
        here = CellBatch(
            tuple(
                replace(cell, setup=_at(cell.setup, device, known, rows is not None)) for cell in batch.cells
            )
        )
        for cell, print_ in zip(here.cells, expected, strict=True):
            if rows is not None:
                cell.setup.take(cell.seed, rows[print_], print_)
            elif cell.setup.data_fingerprint(cell.seed) != print_:
                raise UsageError(f"task {cell.setup.name}: its data has changed since the run was planned")
        executor.run(here)
    executor.close()


def _at(setup: TaskSetup, device: str, known: dict[int, TaskSetup], rows_shipped: bool) -> TaskSetup:
    """The setup on the device of this process, one object for all cells that share it."""
    return known.setdefault(id(setup), replace(setup, device=device, rows_shipped=rows_shipped))
