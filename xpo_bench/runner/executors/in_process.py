"""The local executor: one batch of cells after the other, in this process or each by a group of processes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.runner import environment
from xpo_bench.runner.executors.blame import described
from xpo_bench.runner.executors.groups import CellBatch, job_of, parts_of
from xpo_bench.runner.executors.one_thread import one_thread
from xpo_bench.runner.executors.placement import ExecutionFacts
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import Curve, Error, Record, Status
from xpo_bench.runner.recording import cell_record
from xpo_bench.runner.saved_policies import saved_policy
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.train.items import Items
from xpo_bench.train.job import Outcome, Progress
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.trainer import GroupTrainer

if TYPE_CHECKING:
    from xpo_bench.runner.executors.data_parallel import DataParallelGroup
    from xpo_bench.runner.executors.model_cache import LanguageModels

Finished = Callable[[Cell, Record, Curve, Items | None], None]


class LocalExecutor:
    """Runs batches and hands every finished cell to `finished`.

    Args:
        references: where reference scores are kept. also: facts for the `environment` of records.
    """

    def __init__(
        self,
        finished: Finished,
        progress: Progress | None = None,
        observe: Callable[..., None] = lambda *_, **__: None,
        references: Path | None = None,
        also: ExecutionFacts | None = None,
    ) -> None:
        self.finished, self.progress, self.observe, self.references = finished, progress, observe, references
        self.also: Mapping[str, object] = also or {}
        self._language_models: dict[int, LanguageModels] = {}
        self._data_parallel: DataParallelGroup | None = None

    def close(self) -> None:
        """End the processes that were started."""
        if self._data_parallel:
            self._data_parallel.close()
        self._data_parallel = None

    def run_all(self, batches: Sequence[CellBatch], started: Callable[[CellBatch], None]) -> None:
        """Run batches one after the other."""
        for batch in batches:
            started(batch)
            self.run(batch)

    def run(self, batch: CellBatch) -> None:
        """Run one batch; a failure is a status of its cells, and costs no neighbour its numbers."""
        for cell in batch.cells:
            self.observe("xpo_run_start", cell=cell)
        try:
            outcomes, model = self._train(batch)
        except (KeyboardInterrupt, UsageError):
            raise
        except BaseException as error:
            # raised where a generator is closed: it asks for the end, and is no failure of a cell
            if isinstance(error, GeneratorExit):
                raise
            parts = list(parts_of(batch))
            if len(parts) > 1:  # find the culprit: its neighbours must not pay for it
                for part in parts:
                    self.run(part)
                return
            self.failed(batch, error)
            return
        facts = self._facts(batch)
        for cell, outcome in zip(batch.cells, outcomes, strict=True):
            record = cell_record(
                cell,
                outcome,
                status=cast(Status, outcome.status),
                error=None,
                model=model,
                environment=facts,
            )
            self.finished(cell, record, outcome.curve, outcome.items)

    def _facts(self, batch: CellBatch) -> dict[str, object]:
        with one_thread():  # as the cells were run
            return environment.describe(batch.cells[0].setup.device) | dict(self.also)

    def failed(self, batch: CellBatch, error: BaseException) -> None:
        """Record what ended a batch as the status of its cells."""
        for cell in batch.cells:
            status = _status(error)
            reason: Error = {
                "type": type(error).__name__,
                "message": described(cell, error, ended=status in ("crashed", "timeout")),
                "traceback": "".join(traceback.format_exception(error)),
            }
            record = cell_record(
                cell,
                None,
                status=status,
                error=reason,
                model={"name": cell.setup.model.name},
                environment=self._facts(batch),
            )
            self.finished(cell, record, [], None)

    def _train(self, batch: CellBatch) -> tuple[list[Outcome], Mapping[str, object]]:
        setup = batch.cells[0].setup
        jobs = [job_of(cell) for cell in batch.cells]

        def observed(run: int, step: int, metrics: dict[str, float]) -> None:
            self.observe("xpo_step_end", cell=batch.cells[run], step=step, metrics=metrics)

        if setup.model.tabular:
            from xpo_bench.data.world_file import world_of

            dataset = jobs[0].dataset
            world = dataset.world or world_of((*dataset.train, *dataset.heldout), None)
            arguments = (world, len(jobs), setup.budget.dtype, setup.device)
            linear = setup.model.name == "linear"
            policy: LinearPolicy | TabularPolicy = (
                LinearPolicy(*arguments, rank=setup.model.rank) if linear else TabularPolicy(*arguments)
            )
            trainer = GroupTrainer(
                policy, jobs, _no_cache, device=setup.device, progress=self.progress, on_evaluation=observed
            )
            with one_thread():
                return trainer.run(), policy.describe()
        if setup.processes > 1:
            return self._processes_of(setup).train(batch.cells, self.progress, observed)
        from xpo_bench.runner.executors.model_cache import LanguageModels

        models = self._language_models.setdefault(id(setup), LanguageModels(setup, self.references))
        with one_thread():
            return models.train(jobs, self.progress, observed, [saved_policy(cell) for cell in batch.cells])

    def _processes_of(self, setup: TaskSetup) -> DataParallelGroup:
        """The processes for a task; those of the last one if they are as many and well."""
        from xpo_bench.runner.executors.data_parallel import DataParallelGroup

        if self._data_parallel is None or not self._data_parallel.serves(setup):
            self.close()
            self._data_parallel = DataParallelGroup(setup, self.references)
        return self._data_parallel


class CellTimeout(Exception):
    """A batch took longer than `--cell-timeout`."""


def _status(error: BaseException) -> Status:
    if is_out_of_memory(error):
        return "oom"
    if isinstance(error, ChildProcessError):
        return "crashed"
    return "timeout" if isinstance(error, CellTimeout) else "failed"


def _no_cache(completions: Sequence[Sequence[Completion]], stacked: object, used: Tensor | None) -> Scores:
    raise AssertionError("a table scores its own reference")
