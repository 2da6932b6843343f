"""Several processes of this machine at a time: each runs its groups of cells and ends; what it dies of costs
the one it was at.

The processes are forked from a server that has torch imported and has computed nothing. Each follows the
process that asked, which alone writes records. What comes back is the content of records; the rows of a task
do not travel, each process reads them.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from xpo_bench.runner.executors.dispatcher import Dispatcher, Message, Task, Worker
from xpo_bench.runner.executors.in_process import CellBatch
from xpo_bench.runner.executors.placement import DevicePlacement, places
from xpo_bench.runner.executors.subprocesses import as_child, ending, follow, portable, rebuilt
from xpo_bench.runner.executors.worker import pack, unpack, work

GRACE_S = 5.0


class Pool(Dispatcher):
    """Runs groups in processes of this machine."""

    def prepare(self, groups: Sequence[CellBatch]) -> int:
        setups = [group.cells[0].setup for group in groups]
        self.free = places(self.where.workers, setups[0].device, max(setup.processes for setup in setups))
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            language = (
                []
                if all(s.model.tabular for s in setups)
                else ["transformers", "xpo_bench.runner.executors.model_cache"]
            )
            here = __package__
            self.context.set_forkserver_preload(
                [f"{here}.preload", "torch", __name__, *language, f"{here}.preloaded"]
            )
        return self.where.workers

    def room(self) -> bool:
        return bool(self.free)

    def begin(self, bundle: list[Task]) -> Worker:
        message = pack([task.group for task in bundle], "--workers")
        place = self.free.pop(0)
        ours, theirs = self.context.Pipe()
        arguments = (message, place, self.references, self.facts, theirs)
        name = f"xpo-bench: {bundle[0].group.cells[0].setup.name}"
        process = self.context.Process(target=serve, args=arguments, name=name)
        with as_child():
            process.start()
        theirs.close()
        return Worker(process, ours, bundle, place)

    def listen(self, patience_s: float | None) -> Iterator[tuple[Worker, Message | None]]:
        ready = wait([worker.channel for worker in self.active], patience_s)
        for worker in [worker for worker in self.active if worker.channel in ready]:
            try:
                message: Message | None = worker.channel.recv()
            except (EOFError, ConnectionError):
                message = None
            yield worker, message

    def part(self, worker: Worker, late: bool) -> None:
        if late:
            worker.process.kill()
        worker.process.join(GRACE_S)
        worker.process.kill()  # one that has closed its pipe and lives
        worker.process.join()
        worker.channel.close()
        worker.ended = ending(worker.process)
        self.free.append(worker.place)

    def raised(self, content: Any) -> BaseException:
        return rebuilt(*content)

    def close(self) -> None:
        for worker in self.active:
            worker.process.kill()
        for worker in self.active:
            worker.process.join()
            worker.channel.close()
        self.active = []


# --------------------------------------------------------------------------- in the started process


def serve(
    message: bytes,
    place: DevicePlacement,
    references: Path | None,
    facts: Mapping[str, Any],
    pipe: Connection,
) -> None:
    """Run the groups of a message, and send what becomes of them."""
    threading.Thread(target=follow, daemon=True).start()
    os.dup2(2, 1)  # what a plugin prints is no result
    device = place.settle()
    try:
        work(
            *unpack(message, "--workers"),
            device,
            references,
            facts,
            lambda kind, content: pipe.send((kind, content)),
        )
        answer: tuple[str, Any] = ("done", None)
    except BaseException as error:
        answer = ("error", (portable(error), "".join(traceback.format_exception(error))))
    pipe.send(answer)
    pipe.close()
    os._exit(0)  # the interpreter's own end takes a second or two, with nothing left to do
