"""Several processes at a time: each runs its groups of cells and ends; what it dies of costs the group that it was running.

The processes are forked from a server that has torch imported and has computed nothing. Each follows the process that asked,
which alone writes records. What comes back is the content of records; the rows of a task do not travel, each process reads them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.errors import UsageError
from xpo_bench.runner.executors.children import as_child, ending, follow, portable, rebuilt, unsendable
from xpo_bench.runner.executors.local import CellTimeout, Finished, Group, LocalExecutor, parts_of
from xpo_bench.runner.executors.places import Place, Where, places

if TYPE_CHECKING:
    from xpo_bench.runner.progress import Reporter

TRIES = 2
"""How often a group is begun whose process dies."""
PER_WORKER = 2
"""Into how many bundles per worker the cells of one language model are cut: fewer load it less often, more keep all busy."""
NEWS_S = 1.0
"""Seconds between the steps that a process tells of."""
LANGUAGE = 1000
"""What a step of a language model costs, about, where a step of a table costs one: the longest are begun first."""
GRACE_S = 5.0


@dataclass
class Task:
    """A group to run. `tries`: how often its process has died."""

    group: Group
    tries: int = 0

    @property
    def cost(self) -> float:
        cells = self.group.cells
        budget = cells[0].setup.budget
        return len(cells) * budget.steps * budget.batch_size * (1 if cells[0].setup.model.tabular else LANGUAGE)


@dataclass
class Worker:
    """A process that runs the groups of a bundle in order; `at` is the one that it is at."""

    process: Any
    pipe: Connection
    bundle: list[Task]
    place: Place
    at: int = 0
    done: bool = False
    began: float = field(default_factory=time.monotonic)


class Pool:
    """Runs groups, and hands every finished cell to `finished`.

    Args:
        where: how many processes, and how long a group may take. observe: what calls the observers of plugins, here.
        references: where reference scores are kept; the processes share them there.
    """

    def __init__(
        self,
        where: Where,
        finished: Finished,
        observe: Callable[..., None],
        references: Path | None,
        reporter: Reporter | None = None,
    ) -> None:
        self.where, self.finished, self.observe, self.references, self.reporter = where, finished, observe, references, reporter
        self.recorder = LocalExecutor(finished, also=where.facts)
        self.active: dict[Connection, Worker] = {}
        self.queue: list[list[Task]] = []

    def run_all(self, groups: Sequence[Group], started: Callable[[Group], None]) -> None:
        """Run groups, the longest first; returns when all have their records.

        Raises:
            UsageError: a process found that the run cannot be as it was asked for.
        """
        self.started = started
        self.queue = bundles(groups, self.where.workers)
        if not self.queue:
            return
        setups = [group.cells[0].setup for group in groups]
        free = places(self.where.workers, setups[0].device, max(setup.processes for setup in setups))
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            language = [] if all(s.model.tabular for s in setups) else ["transformers", "xpo_bench.runner.executors.language"]
            here = __package__
            self.context.set_forkserver_preload([f"{here}.preload", "torch", __name__, *language, f"{here}.preloaded"])
        while self.queue or self.active:
            while self.queue and free:
                self._start(self.queue.pop(0), free.pop(0))
            ready = wait(list(self.active), self._patience())
            for pipe in ready:
                worker = self.active[pipe]  # type: ignore[index]
                if not self._hear(worker):
                    free.append(self._leave(worker).place)
            for worker in [w for w in self.active.values() if not w.done and self._late(w)]:
                free.append(self._leave(worker, late=True).place)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self.active.values():
            worker.process.kill()
        for worker in self.active.values():
            worker.process.join()
            worker.pipe.close()
        self.active = {}

    # ----------------------------------------------------------------------- one process

    def _start(self, bundle: list[Task], place: Place) -> None:
        cells = [cell for task in bundle for cell in task.group.cells]
        prints = [[cell.setup.data_fingerprint(cell.seed) for cell in task.group.cells] for task in bundle]
        try:
            message = pickle.dumps(([task.group for task in bundle], prints))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise unsendable(error, "--workers") from error
        ours, theirs = self.context.Pipe()
        arguments = (message, place, self.references, self.where.facts, theirs)
        process = self.context.Process(target=serve, args=arguments, name=f"xpo-bench: {cells[0].setup.name}")
        with as_child():
            process.start()
        theirs.close()
        self.active[ours] = Worker(process, ours, bundle, place)

    def _hear(self, worker: Worker) -> bool:
        """Take the next message of a process; False when there will be none."""
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, ConnectionError):
            return False
        cells = worker.bundle[worker.at].group.cells
        if kind == "start":
            worker.at, worker.began = content, time.monotonic()
            self.started(worker.bundle[worker.at].group)
        elif kind == "step" and self.reporter:
            self.reporter.working(worker.bundle[worker.at].group.label, len(cells))
            self.reporter.step(*content)
        elif kind == "observe":
            hook, key, more = content
            self.observe(hook, cell=next(cell for cell in cells if cell.key == key), **more)
        elif kind == "finished":
            key, record, curve = content
            self.finished(next(cell for cell in cells if cell.key == key), record, curve)
        elif kind == "error":
            raise rebuilt(*content)
        elif kind == "done":
            worker.done = True
        return True

    def _late(self, worker: Worker) -> bool:
        limit = self.where.limit_s
        return limit is not None and time.monotonic() - worker.began > limit

    def _patience(self) -> float | None:
        """Seconds until the next process is late."""
        limit = self.where.limit_s
        if limit is None:
            return None
        return max(0.0, min(worker.began for worker in self.active.values()) + limit - time.monotonic()) + 0.01

    def _leave(self, worker: Worker, late: bool = False) -> Worker:
        """Part with a process that has ended or is late, and put back what it leaves undone."""
        if late:
            worker.process.kill()
        worker.process.join(GRACE_S)
        worker.process.kill()  # one that has closed its pipe and lives
        worker.process.join()
        worker.pipe.close()
        del self.active[worker.pipe]
        if worker.done:
            return worker
        lost, rest = worker.bundle[worker.at], worker.bundle[worker.at + 1 :]
        if rest:
            self.queue.insert(0, rest)
        if late:
            again = [Task(part) for part in parts_of(lost.group)]
            error: Exception = CellTimeout(f"took longer than {self.where.limit_s:g} s (--cell-timeout)")
        elif lost.tries + 1 < TRIES:
            self.queue.insert(0, [Task(lost.group, lost.tries + 1)])
            return worker
        else:
            again = [Task(part, TRIES - 1) for part in parts_of(lost.group)]
            error = ChildProcessError(f"its process {ending(worker.process)}, {TRIES} times")
        if len(again) > 1:  # find the culprit: its neighbours must not pay for it
            self.queue[:0] = [[task] for task in again]
        else:
            self.recorder.failed(lost.group, error)
        return worker


def bundles(groups: Sequence[Group], workers: int) -> list[list[Task]]:
    """What the processes are started with, the longest first: a group, or several that share a language model."""
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


# --------------------------------------------------------------------------- in the started process


def serve(message: bytes, place: Place, references: Path | None, facts: Mapping[str, Any], pipe: Connection) -> None:
    """Run the groups of a message, and send what becomes of them."""
    threading.Thread(target=follow, daemon=True).start()
    os.dup2(2, 1)  # what a plugin prints is no result
    device = place.settle()
    try:
        _serve(message, device, references, facts, pipe)
        answer: tuple[str, Any] = ("done", None)
    except BaseException as error:
        answer = ("error", (portable(error), "".join(traceback.format_exception(error))))
    pipe.send(answer)
    pipe.close()
    os._exit(0)  # the interpreter's own end takes a second or two, with nothing left to do


def _serve(message: bytes, device: str, references: Path | None, facts: Mapping[str, Any], pipe: Connection) -> None:
    try:
        groups, prints = pickle.loads(message)
    except (AttributeError, ImportError) as error:
        raise unsendable(error, "--workers") from error
    told = 0.0

    def step(*content: Any) -> None:
        nonlocal told
        if time.monotonic() - told > NEWS_S:
            told = time.monotonic()
            pipe.send(("step", content))

    def observe(hook: str, *, cell: Any, **more: Any) -> None:
        pipe.send(("observe", (hook, cell.key, more)))

    def finished(cell: Any, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        pipe.send(("finished", (cell.key, record, curve)))

    executor = LocalExecutor(finished, step, observe, references, facts)
    known: dict[Any, Any] = {}
    for number, (group, expected) in enumerate(zip(groups, prints, strict=True)):
        pipe.send(("start", number))
        group = Group(tuple(replace(cell, setup=_at(cell.setup, device, known)) for cell in group.cells))
        for cell, print_ in zip(group.cells, expected, strict=True):
            if cell.setup.data_fingerprint(cell.seed) != print_:
                raise UsageError(f"task {cell.setup.name}: its data has changed since the run was planned")
        executor.run(group)
    executor.close()


def _at(setup: Any, device: str, known: dict[Any, Any]) -> Any:
    """The setup on the device of this process, one object for all cells that share it."""
    return known.setdefault(id(setup), replace(setup, device=device))
