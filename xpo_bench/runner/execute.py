"""A plan carried out: the missing cells are run, written as they finish, and all records collected."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xpo_bench.plugins import Registry
from xpo_bench.runner import environment
from xpo_bench.runner.executed import Executed
from xpo_bench.runner.executors.groups import CellBatch, apart, groups
from xpo_bench.runner.executors.placement import ExecutionConfig
from xpo_bench.runner.executors.spreading import anticipated, spread
from xpo_bench.runner.importing import importing
from xpo_bench.runner.label_choice import told
from xpo_bench.runner.lock import occupied
from xpo_bench.runner.observers import Observers, facts
from xpo_bench.runner.plan import Cell, Plan
from xpo_bench.runner.progress import Reporter
from xpo_bench.runner.record import Curve, Record
from xpo_bench.runner.remarks import remarks
from xpo_bench.runner.run_document import extended
from xpo_bench.runner.saved_policies import is_saved
from xpo_bench.runner.store import Store
from xpo_bench.train.items import Items

if TYPE_CHECKING:
    from xpo_bench.runner.executors.dispatcher import Dispatcher
    from xpo_bench.runner.executors.in_process import LocalExecutor


@dataclass(frozen=True)
class Session:
    """How plans are carried out.

    Args:
        fresh: compute cells again that are there. wait: for another process that writes the run directory.
        track: names of the trackers that follow it.
    """

    registry: Registry
    reporter: Reporter | None = None
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    fresh: bool = False
    wait: bool = False
    track: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        if self.reporter:
            self.reporter.note(text)

    def planning(self, task: str, data: str | None) -> None:
        if self.reporter:
            self.reporter.planning(task, data)


def execute(plan: Plan, store: Store, session: Session) -> Executed:
    """Run the cells that are missing and collect all records of the plan."""
    store.prepare()
    with occupied(store.root, session.wait, session.note):
        _tell_labels(plan, session)
        observers = Observers(session.registry, session.track, store.root)
        todo = [
            cell for cell in plan.cells if session.fresh or not store.done(cell.key) or not is_saved(cell)
        ]
        _set_aside(store)
        batches = groups(todo)
        session = replace(session, execution=spread(session.execution, batches))
        # where other processes train, they import torch while this one does
        anticipated(session.execution, batches)
        _write_run(plan, store)
        _run(plan, batches, Sink(store, session, observers), session)
    records = (store.read_cell(cell.key) for cell in plan.cells)
    cells = [record for record in records if record is not None]
    return Executed(store.root, cells, len(plan.cells), plan.skipped, plan.unreachable, len(todo))


def _tell_labels(plan: Plan, session: Session) -> None:
    setups = {id(cell.setup): cell.setup for cell in plan.cells}.values()
    if session.reporter and setups:
        session.reporter.note_once(told((s.name, s.budget.labels, s.read) for s in setups))


def _set_aside(store: Store) -> None:
    """Move records that are incomplete or corrupt out of the way of those that take their place."""
    for aside, reason in store.set_aside():
        original = aside.with_suffix("")
        print(
            f"xpo-bench: {original}: {reason}; set aside as {aside.name}, and computed again", file=sys.stderr
        )


def _write_run(plan: Plan, store: Store) -> None:
    device = plan.cells[0].setup.device if plan.cells else "cpu"
    store.write_run(
        extended(
            store.read_run(),
            map(facts, plan.cells),
            plan.skipped,
            plan.unreachable,
            ["xpo-bench", *sys.argv[1:]],
            environment.describe(device),
        )
    )


def _run(plan: Plan, batches: Sequence[CellBatch], sink: Sink, session: Session) -> None:
    reporter, todo = session.reporter, [cell for batch in batches for cell in batch.cells]
    with importing():  # torch
        executor = _executor(sink, session)
    if reporter:
        reporter.start(len(plan.cells), len(todo), sink.store.root)
    for remark in apart(todo):
        session.note(remark)
    try:
        executor.run_all(batches, sink.started)
    finally:
        executor.close()
        sink.observers.close()
        if reporter:
            reporter.stop()


def _executor(sink: Sink, session: Session) -> LocalExecutor | Dispatcher:
    """What runs cells where the session says."""
    execution, reporter, observers = session.execution, session.reporter, sink.observers
    references = sink.store.root / "references"
    if execution.in_process:
        step = reporter.step if reporter else None
        from xpo_bench.runner.executors.in_process import LocalExecutor

        return LocalExecutor(sink.finished, step, observers, references, execution.facts)
    if execution.cluster:
        from xpo_bench.runner.executors.ray_pool import RayPool

        return RayPool(execution.cluster, execution, sink.finished, observers, references, reporter)
    from xpo_bench.runner.executors.process_pool import Pool

    return Pool(execution, sink.finished, observers, references, reporter)


class Sink:
    """Where finished cells go: the store, the observers, and, once each, what there is to say of them."""

    def __init__(self, store: Store, session: Session, observers: Observers) -> None:
        self.store, self.reporter, self.observers = store, session.reporter, observers
        self._said: set[str] = set()

    def started(self, batch: CellBatch) -> None:
        if self.reporter:
            self.reporter.batch(batch.label, len(batch.cells))

    def finished(self, cell: Cell, record: Record, curve: Curve, items: Items | None) -> None:
        self.store.write_cell(record, curve, items)
        self.observers("xpo_run_end", cell=cell, record=record)
        for metric, error in record["notes"].get("metric_errors", {}).items():
            failure = f"metric {metric}: {error}"
            if self._is_new(failure):
                print(f"xpo-bench: {failure}; left out of {cell.label}", file=sys.stderr)
        for remark in filter(self._is_new, remarks(record)):
            if self.reporter:  # which is silent with --quiet: the tables say it too
                self.reporter.note(remark)
            else:
                print(f"xpo-bench: {remark}", file=sys.stderr)
        if self.reporter:
            self.reporter.finished(cell.label, record)

    def _is_new(self, text: str) -> bool:
        new = text not in self._said
        self._said.add(text)
        return new
