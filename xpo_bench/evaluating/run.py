"""An evaluation carried out: checkpoints that are missing are measured, each kept once it is done."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from xpo_bench.errors import UsageError
from xpo_bench.evaluating.measured import Measured, Shelf
from xpo_bench.evaluating.measuring import Measurer
from xpo_bench.evaluating.named import Series
from xpo_bench.evaluating.plan import Plan, make_plan
from xpo_bench.evaluating.progress import Progress
from xpo_bench.evaluating.records import evaluation_record
from xpo_bench.evaluating.reference import Prepared, prepare
from xpo_bench.evaluating.results import Result, result_of
from xpo_bench.evaluating.words import Words
from xpo_bench.runner import environment
from xpo_bench.runner.executed import Executed
from xpo_bench.runner.keys import digest
from xpo_bench.runner.lock import occupied
from xpo_bench.runner.observers import facts
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import Error, Record, Status
from xpo_bench.runner.run_document import extended
from xpo_bench.runner.store import Store
from xpo_bench.train.memory import is_out_of_memory


def evaluate(words: Words, device: str, say: Callable[[str], None]) -> Executed:
    """Measure what is named and return the records of all series.

    Args:
        device: one that is there. say: prints a line for the user.

    Raises:
        UsageError: something named is wrong. StoreError: the disk is full; what was measured stands.
    """
    plan = make_plan(words, device)
    for note in plan.readers.notes:
        say(note)
    cells = {s: plan.cell(s) for s in plan.series}
    root = words.out or Path("results/evaluations") / digest(sorted(c.key for c in cells.values()), 12)
    store = Store(root)
    store.prepare()
    with occupied(root, words.wait, say):
        todo = [s for s, cell in cells.items() if words.fresh or not store.done(cell.key)]
        store.write_run(
            extended(
                store.read_run(),
                map(facts, cells.values()),
                [],
                [],
                ["xpo-bench", *sys.argv[1:]],
                environment.describe(device),
            )
        )
        say(_opening(plan, len(todo), root))
        if todo:
            _Evaluation(plan, store, Shelf(root), say).run(todo, cells)
    records = [record for cell in cells.values() if (record := store.read_cell(cell.key)) is not None]
    return Executed(root, records, len(cells), computed=len(todo))


def _opening(plan: Plan, todo: int, root: Path) -> str:
    points = sum(len(s.points) for s in plan.series)
    there = (
        f", {len(plan.series) - todo} of {len(plan.series)} already there" if todo < len(plan.series) else ""
    )
    return f"{points} checkpoint{'s' * (points != 1)} of {len(plan.series)}{there}, records in {root}"


class _Evaluation:
    """The series that are missing, one after the other."""

    def __init__(self, plan: Plan, store: Store, shelf: Shelf, say: Callable[[str], None]) -> None:
        self.plan, self.store, self.shelf, self.say = plan, store, shelf, say

    def run(self, todo: list[Series], cells: dict[Series, Cell]) -> None:
        plan = self.plan
        missing = [p for s in todo for p in s.points if self._known(s, plan.point_key(s, p)) is None]
        self.say(f"scoring the reference {plan.reference.shown}")
        prepared = prepare(plan.loader, plan.asked(todo), self.store.root / "references")
        progress = Progress(self.say, len(missing))
        self._require_rows(prepared)
        measurer = Measurer(plan.loader, prepared, plan.judge, progress.tell)
        for series in todo:
            self._series(series, cells[series], prepared, measurer, progress)

    def _known(self, series: Series, key: str) -> Measured | None:
        return None if self.plan.words.fresh else self.shelf.read(key)

    def _require_rows(self, prepared: Prepared) -> None:
        if "train" not in prepared.sets:
            reasons = ", ".join(f"{n} {what}" for what, n in prepared.facts["unfit"].items())
            raise UsageError(
                f"{self.plan.words.data}: no row is left that fits the model's context "
                f"({reasons or 'equal ids'}); "
                "want shorter rows or another --truncate"
            )

    def _series(
        self, series: Series, cell: Cell, prepared: Prepared, measurer: Measurer, progress: Progress
    ) -> None:
        """Measure the checkpoints of one series and write its record; a failure is a status of it alone."""
        found: list[Measured] = []
        for place in series.points:
            key = self.plan.point_key(series, place)
            measured = self._known(series, key)
            if measured is None:
                try:
                    measured = measurer.measure(place, self.plan.drawing(series))
                except (RuntimeError, MemoryError) as error:  # what torch raises
                    self._failed(series, cell, prepared, place.shown, error)
                    return
                self.shelf.write(key, measured)
                progress.measured(place.shown, measured.seconds)
            found.append(measured)
        result = result_of(cell.algorithm, prepared, [p.step for p in series.points], found)
        record = self._record(series, cell, prepared, result)
        self.store.write_cell(record, result.outcome.curve, result.outcome.items)

    def _failed(
        self, series: Series, cell: Cell, prepared: Prepared, shown: str, error: RuntimeError | MemoryError
    ) -> None:
        """Record what ended a series; the others go on."""
        status: Status = "oom" if is_out_of_memory(error) else "failed"
        reason: Error = {
            "type": type(error).__name__,
            "message": f"{shown}: {error}",
            "traceback": "".join(traceback.format_exception(error)),
        }
        record = self._record(series, cell, prepared, status=status, error=reason)
        self.store.write_cell(record, [], None)
        self.say(f"{series.label}: {status}: {' '.join(str(error).split())[:200]}")

    def _record(
        self,
        series: Series,
        cell: Cell,
        prepared: Prepared,
        result: Result | None = None,
        *,
        status: Status = "ok",
        error: Error | None = None,
    ) -> Record:
        """The record of a series, with what there is of its result."""
        return evaluation_record(
            cell,
            result,
            evaluated=self.plan.evaluated(series),
            model={**prepared.model, "name": self.plan.reference.shown},
            environment=environment.describe(self.plan.device),
            status=status,
            error=error,
            options=self.plan.options,
            sizes=_sizes(prepared) if result else None,
        )


def _sizes(prepared: Prepared) -> dict[str, int]:
    """How many rows of each split were evaluated."""
    names = {"train": "eval_pairs", "heldout": "heldout_pairs"}
    return {names[name]: len(known.rows[0]) for name, known in prepared.sets.items()}
