"""Several processes of this machine at a time: each runs batches of cells; its death costs the one it was at.

The processes are forked from a server that has torch imported and has computed nothing. Each follows the
process that asked, which alone writes records. What comes back is the content of records; the rows of a task
do not travel, each process reads them.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from xpo_bench.runner.executors.dispatcher import Attempt, Dispatcher, Message, Worker
from xpo_bench.runner.executors.groups import CellBatch
from xpo_bench.runner.executors.placement import DevicePlacement, ExecutionFacts, placements
from xpo_bench.runner.executors.subprocesses import as_child, beginning, ending, follow, portable, rebuilt
from xpo_bench.runner.executors.worker import pack, unpack, work

GRACE_S = 5.0


class Pool(Dispatcher):
    """Runs batches in processes of this machine."""

    def prepare(self, batches: Sequence[CellBatch]) -> int:
        setups = [batch.cells[0].setup for batch in batches]
        count = self.execution.workers
        self.free = placements(count, setups[0].device, max(setup.processes for setup in setups))
        self.context = beginning(language=not all(setup.model.tabular for setup in setups))
        return count

    def room(self) -> bool:
        return bool(self.free)

    def begin(self, bundle: list[Attempt]) -> Worker:
        message = pack([attempt.batch for attempt in bundle], "--workers")
        placement = self.free.pop(0)
        ours, theirs = self.context.Pipe()
        arguments = (message, placement, self.references, self.facts, theirs)
        name = f"xpo-bench: {bundle[0].batch.cells[0].setup.name}"
        process = self.context.Process(target=serve, args=arguments, name=name)
        with as_child():
            process.start()
        theirs.close()
        return Worker(process, ours, bundle, placement)

    def listen(self, patience_s: float | None) -> Iterator[tuple[Worker, Message | None]]:
        ready = wait([worker.channel for worker in self.active], patience_s)
        for worker in [worker for worker in self.active if worker.channel in ready]:
            try:
                message: Message | None = worker.channel.recv()
            except (EOFError, ConnectionError):
                message = None
            yield worker, message  # None: the pipe is closed, the process has ended or will

    def part(self, worker: Worker, late: bool) -> None:
        if late:
            worker.process.kill()
        worker.process.join(GRACE_S)
        worker.process.kill()  # one that has closed its pipe and lives
        worker.process.join()
        worker.channel.close()
        worker.ended = ending(worker.process)
        if worker.placement:
            self.free.append(worker.placement)

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
    placement: DevicePlacement,
    references: Path | None,
    facts: ExecutionFacts,
    pipe: Connection,
) -> None:
    """Run the batches of a message, and send what becomes of them."""
    threading.Thread(target=follow, daemon=True).start()
    os.dup2(2, 1)  # what a plugin prints is no result
    device = placement.settle()
    try:
        work(
            *unpack(message, "--workers"),
            device,
            references,
            facts,
            lambda kind, content: pipe.send((kind, content)),
        )
        answer: tuple[str, object] = ("done", None)
    except BaseException as error:
        answer = ("error", (portable(error), "".join(traceback.format_exception(error))))
    pipe.send(answer)
    pipe.close()
    os._exit(0)  # the interpreter's own end takes a second or two, with nothing left to do
