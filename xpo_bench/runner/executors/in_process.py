"""The local executor: groups of cells one after the other, in this process or in a team of processes for
each.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.runner import environment
from xpo_bench.runner.executors.blame import described
from xpo_bench.runner.plan import Cell, TaskSetup
from xpo_bench.runner.record import cell_record
from xpo_bench.train.job import Job, Outcome, Progress
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.trainer import GroupTrainer

if TYPE_CHECKING:
    from xpo_bench.runner.executors.data_parallel import DataParallelGroup
    from xpo_bench.runner.executors.model_cache import LanguageModels

MAX_RUNS = 1024
"""Runs of one vectorised computation at most: beyond it nothing is gained, and an interruption costs all of
them.
"""

Finished = Callable[[Cell, dict[str, Any], list[dict[str, Any]]], None]


@dataclass(frozen=True)
class CellBatch:
    """Cells that run as one computation."""

    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        names = list(dict.fromkeys(cell.algorithm.name for cell in self.cells))
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"{self.cells[0].setup.name}: {shown}" + (
            f" ({len(self.cells)} runs)" if len(self.cells) > 1 else ""
        )


def job_of(cell: Cell) -> Job:
    """The cell as the trainer sees it."""
    setup = cell.setup
    metrics = tuple(metric for metric, _ in setup.metrics.values())
    return Job(
        cell.algorithm,
        setup.name,
        cell.seed,
        cell.lr,
        cell.optimizer,
        setup.dataset(cell.seed),
        setup.budget,
        metrics,
    )


def fits_ensemble(cell: Cell) -> bool:
    """Whether a cell of a language model may be one copy of several: it neither samples, nor lists its
    completions.
    """
    dataset = cell.setup.dataset(cell.seed)
    listed = dataset.world is not None and dataset.world.exhaustive
    return (
        not cell.algorithm.requires
        and not listed
        and not any(stage.refresh or stage.solve for stage in cell.algorithm.stages())
    )


def groups(cells: Sequence[Cell]) -> list[CellBatch]:
    """Cells of tabular tasks with equal stages, optimizer, budget and world share a computation.

    Those of language models run alone, or with others of their task and algorithm where its budget asks for
    an ensemble.
    """
    shared: dict[Any, list[Cell]] = {}
    for cell in cells:
        if not cell.setup.model.tabular:
            key: Any = cell.key
            if cell.setup.budget.ensemble > 1 and fits_ensemble(cell):
                key = (id(cell.setup), cell.algorithm.name, cell.optimizer, repr(cell.algorithm.stages()))
            shared.setdefault(key, []).append(cell)
            continue
        dataset = cell.setup.dataset(cell.seed)
        known = repr(dataset.world) if dataset.world else ""
        # tasks on one world that have as many rows are the same computation with other indices
        place: Any = id(cell.setup)
        if dataset.world:
            budget = repr(cell.setup.budget)
            place = (
                repr(cell.setup.model),
                budget,
                cell.setup.device,
                len(dataset.train),
                len(dataset.heldout),
            )
        on_policy = any(stage.refresh is not None or stage.solve for stage in cell.algorithm.stages())
        key = (
            place,
            cell.optimizer,
            repr(cell.algorithm.stages()),
            known,
            cell.algorithm.name if on_policy else "",
        )
        shared.setdefault(key, []).append(cell)
    out = []
    for members in shared.values():
        ordered = sorted(
            enumerate(members),
            key=lambda item: (item[1].algorithm.name, repr(job_of(item[1]).group()[1]), item[0]),
        )
        most = MAX_RUNS if members[0].setup.model.tabular else members[0].setup.budget.ensemble
        for start in range(0, len(ordered), most):
            out.append(CellBatch(tuple(cell for _, cell in ordered[start : start + most])))
    return out


class LocalExecutor:
    """Runs groups and hands every finished cell to `finished`.

    Args:
        references: where reference scores are kept. also: facts for the `environment` of records.
    """

    def __init__(
        self,
        finished: Finished,
        progress: Progress | None = None,
        observe: Callable[..., None] = lambda *_, **__: None,
        references: Path | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        self.finished, self.progress, self.observe, self.references = finished, progress, observe, references
        self.also = dict(also or {})
        self._language_models: dict[int, LanguageModels] = {}
        self._team: DataParallelGroup | None = None

    def close(self) -> None:
        """End the processes that were started."""
        if self._team:
            self._team.close()
        self._team = None

    def run_all(self, groups: Sequence[CellBatch], started: Callable[[CellBatch], None]) -> None:
        """Run groups one after the other."""
        for group in groups:
            started(group)
            self.run(group)

    def run(self, group: CellBatch) -> None:
        """Run one group; a failure is a status of its cells, and costs no neighbour its numbers."""
        for cell in group.cells:
            self.observe("xpo_run_start", cell=cell)
        try:
            outcomes, model = self._train(group)
        except (KeyboardInterrupt, UsageError):
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            parts = list(parts_of(group))
            if len(parts) > 1:  # find the culprit: its neighbours must not pay for it
                for part in parts:
                    self.run(part)
                return
            self.failed(group, error)
            return
        facts = self._facts(group)
        for cell, outcome in zip(group.cells, outcomes, strict=True):
            record = cell_record(
                cell, outcome, status=outcome.status, error=None, model=model, environment=facts
            )
            self.finished(cell, record, outcome.curve)

    def _facts(self, group: CellBatch) -> dict[str, Any]:
        with one_thread():  # as the cells were run
            return environment.describe(group.cells[0].setup.device) | self.also

    def failed(self, group: CellBatch, error: BaseException) -> None:
        """Record what ended a group as the status of its cells."""
        for cell in group.cells:
            status = _status(error)
            reason = {
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
                environment=self._facts(group),
            )
            self.finished(cell, record, [])

    def _train(self, group: CellBatch) -> tuple[list[Outcome], Mapping[str, Any]]:
        setup = group.cells[0].setup
        jobs = [job_of(cell) for cell in group.cells]

        def observed(run: int, step: int, metrics: dict[str, float]) -> None:
            self.observe("xpo_step_end", cell=group.cells[run], step=step, metrics=metrics)

        if setup.model.tabular:
            from xpo_bench.data.world_file import world_of

            dataset = jobs[0].dataset
            world = dataset.world or world_of((*dataset.train, *dataset.heldout), None)
            place = (world, len(jobs), setup.budget.dtype, setup.device)
            linear = setup.model.name == "linear"
            policy: Any = LinearPolicy(*place, rank=setup.model.rank) if linear else TabularPolicy(*place)
            trainer = GroupTrainer(
                policy, jobs, _no_cache, device=setup.device, progress=self.progress, on_evaluation=observed
            )
            with one_thread():
                return trainer.run(), policy.describe()
        if setup.processes > 1:
            return self._team_of(setup).train(group.cells, self.progress, observed)
        from xpo_bench.runner.executors.model_cache import LanguageModels

        models = self._language_models.setdefault(id(setup), LanguageModels(setup, self.references))
        with one_thread():
            return models.train(jobs, self.progress, observed)

    def _team_of(self, setup: TaskSetup) -> DataParallelGroup:
        """The processes for a task; those of the last one if they are as many and well."""
        from xpo_bench.runner.executors.data_parallel import DataParallelGroup

        if self._team is None or not self._team.serves(setup):
            self.close()
            self._team = DataParallelGroup(setup, self.references)
        return self._team


class CellTimeout(Exception):
    """A group took longer than `--cell-timeout`."""


def _status(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "oom"
    return (
        "crashed"
        if isinstance(error, ChildProcessError)
        else "timeout"
        if isinstance(error, CellTimeout)
        else "failed"
    )


def parts_of(group: CellBatch) -> Iterator[CellBatch]:
    """A group cut one level finer: per algorithm, then per cell."""
    by_algorithm: dict[str, list[Cell]] = {}
    for cell in group.cells:
        by_algorithm.setdefault(cell.algorithm.name, []).append(cell)
    if len(by_algorithm) > 1:
        yield from (CellBatch(tuple(cells)) for cells in by_algorithm.values())
    else:
        yield from (CellBatch((cell,)) for cell in group.cells)


def _no_cache(completions: Sequence[Sequence[Completion]], stacked: Any, used: Tensor | None) -> Scores:
    raise AssertionError("a table scores its own reference")


class one_thread:
    """Tiny computations are faster on one thread than on two; afterwards torch's settings are what they were."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        threads, dtype, grad = self.before
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
