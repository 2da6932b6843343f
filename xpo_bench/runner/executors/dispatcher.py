"""Which batch of cells is begun when, and what becomes of one whose process dies or takes too long.

An executor of several processes says how one is begun, heard and ended, and where it runs. This process, the
driver, alone writes records.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.runner.executors.groups import CellBatch, parts_of
from xpo_bench.runner.executors.in_process import CellTimeout, Finished, LocalExecutor
from xpo_bench.runner.executors.placement import DevicePlacement, ExecutionConfig
from xpo_bench.runner.plan import Cell
from xpo_bench.train.items import Items

if TYPE_CHECKING:
    from xpo_bench.runner.progress import Reporter

TRIES = 2
"""How often a batch is begun whose process dies."""
PER_WORKER = 2
"""Bundles per worker of the cells of one language model: fewer load it less often, more keep all busy."""
LANGUAGE = 15
"""What a pair of a language model costs, with its evaluations, where a step of a tabular policy costs 1
and ..."""
PAIRS = 2000
"""... as many pairs of tabular policies, of all runs that it computes at once, cost another 1."""


@dataclass
class Attempt:
    """A batch to run. `tries`: how often its process has died."""

    batch: CellBatch
    tries: int = 0

    @property
    def cost(self) -> float:
        cells, setup = self.batch.cells, self.batch.cells[0].setup
        rows = len(setup.dataset(cells[0].seed).train)
        pairs = len(cells) * min(setup.budget.batch_size, rows)
        return setup.budget.steps * (1 + pairs / PAIRS if setup.model.tabular else LANGUAGE * pairs)


@dataclass(eq=False)
class Worker:
    """A process that runs the batches of a bundle in order; `at` is the one that it is at.

    Args:
        process, channel: what ends it, and what is heard of it. began: when its batch did, by the monotonic
            clock.
        ended: in words, how it has ended.
    """

    process: Any
    channel: Any
    bundle: list[Attempt]
    placement: DevicePlacement | None = None
    at: int = 0
    done: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: str = ""


Message = tuple[str, Any]
"""(kind, content): begun; start, a batch by its number; step; observe; finished, a cell; error; done."""


class Dispatcher(ABC):
    """Runs batches in processes, and hands every finished cell to `finished`.

    Args:
        execution: how many processes, and how long a batch may take. observe: what calls the observers of
            plugins, here.
        references: where reference scores are kept; the processes share them there.
    """

    def __init__(
        self,
        execution: ExecutionConfig,
        finished: Finished,
        observe: Callable[..., None],
        references: Path | None,
        reporter: Reporter | None = None,
    ) -> None:
        self.execution, self.finished, self.observe = execution, finished, observe
        self.references, self.reporter = references, reporter
        self.facts = execution.facts
        self.active: list[Worker] = []
        self.queue: list[list[Attempt]] = []

    # ----------------------------------------------------------------------- what an executor says

    @abstractmethod
    def prepare(self, batches: Sequence[CellBatch]) -> int:
        """Make ready for these batches; the number of processes at a time.

        Raises:
            UsageError: they cannot run there.
        """

    @abstractmethod
    def room(self) -> bool:
        """Whether another process may be begun."""

    @abstractmethod
    def begin(self, bundle: list[Attempt]) -> Worker:
        """Begin a process for a bundle."""

    @abstractmethod
    def listen(self, patience_s: float | None) -> Iterator[tuple[Worker, Message | None]]:
        """What is heard of the active processes within some seconds; None of one that will say no more."""

    @abstractmethod
    def part(self, worker: Worker, late: bool) -> None:
        """See that a process is no more, and set how it has `ended`."""

    @abstractmethod
    def close(self) -> None:
        """End the processes, whatever they are at."""

    # ----------------------------------------------------------------------- what is done of it

    def run_all(self, batches: Sequence[CellBatch], started: Callable[[CellBatch], None]) -> None:
        """Run batches, the longest first; returns when all have their records.

        Raises:
            UsageError: a process found that the run cannot be as it was asked for.
        """
        if not batches:
            return
        self.started = started
        self.queue = bundles(batches, self.prepare(batches))
        self.recorder = LocalExecutor(self.finished, also=self.facts)
        while self.queue or self.active:
            while self.queue and self.room():
                self.active.append(self.begin(self.queue.pop(0)))
            for worker, message in self.listen(self._patience()):
                if message is None:
                    self._retire(worker)
                else:
                    self._handle(worker, *message)
            for worker in [w for w in self.active if not w.done and self._late(w)]:
                self._retire(worker, late=True)

    def _handle(self, worker: Worker, kind: str, content: Any) -> None:
        """Take a message of a process."""
        # the limit is one of a batch: the clock starts anew with each, and when a task that waited begins
        if kind in ("begun", "start"):
            worker.began = time.monotonic()
        if kind == "start":
            worker.at = content
            self.started(worker.bundle[worker.at].batch)
        batch = worker.bundle[worker.at].batch
        if kind == "step" and self.reporter:
            self.reporter.working(batch.label, len(batch.cells))
            self.reporter.step(*content)
        elif kind == "observe":
            hook, key, more = content
            self.observe(hook, cell=_of_key(batch, key), **more)
        elif kind == "finished":
            key, record, curve, items = content
            known = None if items is None else Items.of_plain(items)
            self.finished(_of_key(batch, key), record, curve, known)
        elif kind == "error":
            raise self.raised(content)
        elif kind == "done":
            worker.done = True

    @abstractmethod
    def raised(self, content: Any) -> BaseException:
        """The error in a message of a process."""

    def _late(self, worker: Worker) -> bool:
        limit = self.execution.limit_s
        return limit is not None and time.monotonic() - worker.began > limit

    def _patience(self) -> float | None:
        """Seconds until the next process is late."""
        limit = self.execution.limit_s
        if limit is None or not self.active:
            return None
        # a hundredth of a second more, so that it is late when it is looked at
        return max(0.0, min(worker.began for worker in self.active) + limit - time.monotonic()) + 0.01

    def _retire(self, worker: Worker, late: bool = False) -> None:
        """Part with a process that has ended or is late, and put back what it leaves undone."""
        self.active.remove(worker)
        self.part(worker, late)
        if worker.done:
            return
        # the batches before `at` have their records, the one at it is suspect, those after it were not begun
        lost, rest = worker.bundle[worker.at], worker.bundle[worker.at + 1 :]
        if rest:
            self.queue.insert(0, rest)
        if late:
            again = [Attempt(part) for part in parts_of(lost.batch)]
            error: Exception = CellTimeout(f"took longer than {self.execution.limit_s:g} s (--cell-timeout)")
        elif lost.tries + 1 < TRIES:  # the machine may have ended it, for memory say: once more as it is
            self.queue.insert(0, [Attempt(lost.batch, lost.tries + 1)])
            return
        else:
            again = [Attempt(part, TRIES - 1) for part in parts_of(lost.batch)]
            error = ChildProcessError(f"its process {worker.ended}, {TRIES} times")
        if len(again) > 1:  # find the culprit: its neighbours must not pay for it
            self.queue[:0] = [[attempt] for attempt in again]
        else:
            self.recorder.failed(lost.batch, error)


def _of_key(batch: CellBatch, key: str) -> Cell:
    return next(cell for cell in batch.cells if cell.key == key)


def bundles(batches: Sequence[CellBatch], workers: int) -> list[list[Attempt]]:
    """What the processes are begun with, the longest first: a batch, or several of one language model."""
    shared: dict[str | int, list[Attempt]] = {}
    for batch in batches:
        first = batch.cells[0]
        model = first.key if first.setup.model.tabular else id(first.setup)  # tabular policies share nothing
        shared.setdefault(model, []).append(Attempt(batch))
    out: list[list[Attempt]] = []
    for attempts in shared.values():
        attempts.sort(key=lambda attempt: -attempt.cost)
        count = min(len(attempts), PER_WORKER * workers)
        out += [attempts[start::count] for start in range(count)]  # dealt in turn: every bundle about as long
    return sorted(out, key=lambda bundle: -sum(attempt.cost for attempt in bundle))
