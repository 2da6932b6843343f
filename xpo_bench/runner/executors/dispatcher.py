"""Which group of cells is begun when, and what becomes of one whose process dies or takes too long; not where
processes run.

An executor of several processes says how one is begun, heard and ended. This one, the driver, alone writes
records.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.runner.executors.in_process import CellBatch, CellTimeout, Finished, LocalExecutor, parts_of
from xpo_bench.runner.executors.placement import ExecutionConfig

if TYPE_CHECKING:
    from xpo_bench.runner.progress import Reporter

TRIES = 2
"""How often a group is begun whose process dies."""
PER_WORKER = 2
"""Into how many bundles per worker the cells of one language model are cut: fewer load it less often, more
keep all busy.
"""
LANGUAGE = 1000
"""What a step of a language model costs, about, where a step of a table costs one: the longest are begun
first.
"""


@dataclass
class Task:
    """A group to run. `tries`: how often its process has died."""

    group: CellBatch
    tries: int = 0

    @property
    def cost(self) -> float:
        cells = self.group.cells
        budget = cells[0].setup.budget
        return (
            len(cells) * budget.steps * budget.batch_size * (1 if cells[0].setup.model.tabular else LANGUAGE)
        )


@dataclass(eq=False)
class Worker:
    """A process that runs the groups of a bundle in order; `at` is the one that it is at.

    Args:
        process, channel: what ends it, and what is heard of it. began: when its group did, by the monotonic
            clock.
        ended: in words, how it has ended.
    """

    process: Any
    channel: Any
    bundle: list[Task]
    place: Any = None
    at: int = 0
    done: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: str = ""


Message = tuple[str, Any]
"""(kind, content): begun; start, a group by its number; step; observe; finished, a cell; error; done."""


class Dispatcher(ABC):
    """Runs groups in processes, and hands every finished cell to `finished`.

    Args:
        where: how many processes, and how long a group may take. observe: what calls the observers of
            plugins, here.
        references: where reference scores are kept; the processes share them there.
    """

    def __init__(
        self,
        where: ExecutionConfig,
        finished: Finished,
        observe: Callable[..., None],
        references: Path | None,
        reporter: Reporter | None = None,
    ) -> None:
        self.where, self.finished, self.observe, self.references, self.reporter = (
            where,
            finished,
            observe,
            references,
            reporter,
        )
        self.facts: Mapping[str, Any] = where.facts
        self.active: list[Worker] = []
        self.queue: list[list[Task]] = []

    # ----------------------------------------------------------------------- what an executor says

    @abstractmethod
    def prepare(self, groups: Sequence[CellBatch]) -> int:
        """Make ready for these groups; the number of processes at a time.

        Raises:
            UsageError: they cannot run there.
        """

    @abstractmethod
    def room(self) -> bool:
        """Whether another process may be begun."""

    @abstractmethod
    def begin(self, bundle: list[Task]) -> Worker:
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

    def run_all(self, groups: Sequence[CellBatch], started: Callable[[CellBatch], None]) -> None:
        """Run groups, the longest first; returns when all have their records.

        Raises:
            UsageError: a process found that the run cannot be as it was asked for.
        """
        if not groups:
            return
        self.started = started
        self.queue = bundles(groups, self.prepare(groups))
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
        if kind in ("begun", "start"):
            worker.began = time.monotonic()
        if kind == "start":
            worker.at = content
            self.started(worker.bundle[worker.at].group)
        cells = worker.bundle[worker.at].group.cells
        if kind == "step" and self.reporter:
            self.reporter.working(worker.bundle[worker.at].group.label, len(cells))
            self.reporter.step(*content)
        elif kind == "observe":
            hook, key, more = content
            self.observe(hook, cell=next(cell for cell in cells if cell.key == key), **more)
        elif kind == "finished":
            key, record, curve = content
            self.finished(next(cell for cell in cells if cell.key == key), record, curve)
        elif kind == "error":
            raise self.raised(content)
        elif kind == "done":
            worker.done = True

    @abstractmethod
    def raised(self, content: Any) -> BaseException:
        """The error that a process tells of."""

    def _late(self, worker: Worker) -> bool:
        limit = self.where.limit_s
        return limit is not None and time.monotonic() - worker.began > limit

    def _patience(self) -> float | None:
        """Seconds until the next process is late."""
        limit = self.where.limit_s
        if limit is None or not self.active:
            return None
        return max(0.0, min(worker.began for worker in self.active) + limit - time.monotonic()) + 0.01

    def _retire(self, worker: Worker, late: bool = False) -> None:
        """Part with a process that has ended or is late, and put back what it leaves undone."""
        self.active.remove(worker)
        self.part(worker, late)
        if worker.done:
            return
        lost, rest = worker.bundle[worker.at], worker.bundle[worker.at + 1 :]
        if rest:
            self.queue.insert(0, rest)
        if late:
            again = [Task(part) for part in parts_of(lost.group)]
            error: Exception = CellTimeout(f"took longer than {self.where.limit_s:g} s (--cell-timeout)")
        elif lost.tries + 1 < TRIES:
            self.queue.insert(0, [Task(lost.group, lost.tries + 1)])
            return
        else:
            again = [Task(part, TRIES - 1) for part in parts_of(lost.group)]
            error = ChildProcessError(f"its process {worker.ended}, {TRIES} times")
        if len(again) > 1:  # find the culprit: its neighbours must not pay for it
            self.queue[:0] = [[task] for task in again]
        else:
            self.recorder.failed(lost.group, error)


def bundles(groups: Sequence[CellBatch], workers: int) -> list[list[Task]]:
    """What the processes are begun with, the longest first: a group, or several that share a language model."""
    shared: dict[Any, list[Task]] = {}
    for group in groups:
        setup = group.cells[0].setup
        shared.setdefault(group.cells[0].key if setup.model.tabular else id(setup), []).append(Task(group))
    out: list[list[Task]] = []
    for tasks in shared.values():
        tasks.sort(key=lambda task: -task.cost)
        count = min(len(tasks), PER_WORKER * workers)
        out += [tasks[start::count] for start in range(count)]
    return sorted(out, key=lambda bundle: -sum(task.cost for task in bundle))
