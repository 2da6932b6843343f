"""Whether the cells of a command use several cores, where it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xpo_bench.runner.devices import cores
from xpo_bench.runner.executors.groups import CellBatch
from xpo_bench.runner.executors.placement import ExecutionConfig
from xpo_bench.runner.executors.subprocesses import anticipate

WORTH = 1000
"""Steps of small language models, about ten seconds, from which processes that take two to start pay."""


def spread(execution: ExecutionConfig, batches: Sequence[CellBatch]) -> ExecutionConfig:
    """A worker on every core, one thread each, where that is quicker and numbers are the same.

    It is where several small language models train on a CPU. Larger ones fill the cores and the memory by
    themselves, and all runs on a table are one computation.
    """
    cells = [cell for batch in batches for cell in batch.cells]
    small = [cell for cell in cells if cell.setup.model.name == "tiny"]
    fits = all(cell.setup.device == "cpu" and cell.setup.processes == 1 for cell in cells)
    fits = fits and all(cell.setup.model.tabular or cell.setup.model.name == "tiny" for cell in cells)
    steps = sum(cell.setup.budget.steps if cell.stop is None else cell.stop for cell in small)
    workers = min(cores(), len(batches))
    if not (execution.spreads and execution.in_process and fits and steps >= WORTH and workers > 1):
        return execution
    return replace(execution, workers=workers)


def anticipated(execution: ExecutionConfig, batches: Sequence[CellBatch]) -> None:
    """Have what begins the processes of this machine begin itself, where there will be some."""
    if batches and not execution.in_process and execution.cluster is None:
        anticipate(language=not all(batch.cells[0].setup.model.tabular for batch in batches))
