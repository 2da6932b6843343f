"""Processes that train one language model together; this one starts, hears and ends them, and writes records.

Each holds the whole model on a device of its own and reads the data itself. The process that asks takes no
part in the training, so that it can end the others when one of them raises, dies or is waited for in vain.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.runner.devices import devices_from
from xpo_bench.runner.executors.groups import job_of
from xpo_bench.runner.executors.one_thread import one_thread
from xpo_bench.runner.executors.subprocesses import (
    as_child,
    beginning,
    ending,
    follow,
    packed,
    portable,
    rebuilt,
    unpacked,
)
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.saved_policies import saved_policy
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.train.job import Outcome, Progress

if TYPE_CHECKING:
    from xpo_bench.runner.executors.model_cache import LanguageModels

Observed = Callable[[int, int, dict[str, float]], None]

GRACE_S = 0.5
"""Seconds in which the death of a process is noticed that another process's error may come from."""


class DataParallelGroup:
    """The processes that train the cells of one number of processes and one device, one cell after the other.

    Args:
        setup: says how many, and on which devices. references: where reference scores are kept.
    """

    def __init__(self, setup: TaskSetup, references: Path | None) -> None:
        self.count, self.device = setup.processes, setup.device
        # where the processes find one another: torch's file rendezvous needs no free port
        self.folder = tempfile.TemporaryDirectory(prefix="xpo-bench-")
        self.members: list[multiprocessing.process.BaseProcess] = []
        self.pipes: list[Connection] = []
        context = beginning(language=True)
        devices = devices_from(self.device, self.count)
        try:
            for rank, device in enumerate(devices):
                ours, theirs = context.Pipe()
                meeting = Path(self.folder.name) / "meeting"
                arguments = (rank, self.count, device, meeting, references, dict(os.environ), theirs)
                member = context.Process(
                    target=serve, args=arguments, daemon=True, name=f"xpo-bench {rank + 1}/{self.count}"
                )
                self.pipes.append(ours)
                with as_child():
                    member.start()
                self.members.append(member)
                theirs.close()
        except BaseException:
            self.kill()
            raise

    def serves(self, setup: TaskSetup) -> bool:
        """Whether the processes are all there and are what a task asks for."""
        return bool(self.members) and (self.count, self.device) == (setup.processes, setup.device)

    def train(
        self, cells: Sequence[Cell], progress: Progress | None, observed: Observed
    ) -> tuple[list[Outcome], Mapping[str, object]]:
        """Train cells as one computation; the first process's outcomes, and facts about the model.

        Raises:
            ChildProcessError: a process has died. Whatever a process raised, otherwise. The group has ended
            then.
        """
        try:
            return self._train(cells, progress, observed)
        except BaseException:
            self.kill()
            raise

    def _train(
        self, cells: Sequence[Cell], progress: Progress | None, observed: Observed
    ) -> tuple[list[Outcome], Mapping[str, object]]:
        setup = cells[0].setup
        # rows do not travel: every process reads them, and refuses what has another fingerprint
        prints = {cell.seed: setup.data_fingerprint(cell.seed) for cell in cells}
        classes = (type(cell.algorithm) for cell in cells)
        # the id says when a loaded model serves again
        message = packed((id(setup), cells, prints), classes, "--gpus-per-cell")
        with contextlib.suppress(BrokenPipeError):  # a dead process is found below
            for pipe in self.pipes:
                pipe.send_bytes(message)
        results: dict[int, tuple[list[Outcome], Mapping[str, object]]] = {}
        while len(results) < self.count:
            ready = wait([pipe for rank, pipe in enumerate(self.pipes) if rank not in results])
            for rank, pipe in enumerate(self.pipes):
                if pipe in ready:
                    kind, content = self._received(rank)
                    if kind == "step" and progress:
                        progress(*content)
                    elif kind == "evaluation":
                        observed(*content)
                    elif kind == "error":
                        # when one process dies the others fail in their next collective: blame the dead one
                        self._raise_if_one_died(GRACE_S)
                        raise rebuilt(*content)
                    elif kind == "result":
                        results[rank] = content
        outcomes, model = results[0]
        return outcomes, model

    def _received(self, rank: int) -> tuple[str, Any]:
        """The next message of a process."""
        try:
            message: tuple[str, Any] = self.pipes[rank].recv()
        except (EOFError, ConnectionError):
            self._raise_if_one_died(10 * GRACE_S)
            raise ChildProcessError(f"process {rank + 1}/{self.count} is not heard any more") from None
        return message

    def _raise_if_one_died(self, patience_s: float) -> None:
        ended = wait([member.sentinel for member in self.members], patience_s)
        for member in self.members:
            if member.sentinel in ended:
                member.join(10 * GRACE_S)
                raise ChildProcessError(f"process {member.name.split()[-1]} {ending(member)}")

    def close(self) -> None:
        """Let the processes end, which wait for cells."""
        for pipe in self.pipes:
            pipe.close()
        for member in self.members:
            member.join(10 * GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End the processes, whatever they are at."""
        for member in self.members:
            member.kill()
        for member in self.members:
            member.join()
        for pipe in self.pipes:
            pipe.close()
        self.members, self.pipes = [], []
        self.folder.cleanup()


# --------------------------------------------------------------------------- in the started processes


def serve(
    rank: int,
    count: int,
    device: str,
    meeting: Path,
    references: Path | None,
    variables: Mapping[str, str],
    pipe: Connection,
) -> None:
    """Train what arrives by the pipe, until it closes; what one process of a group runs."""
    # of the process that asks as they are now: a fork server has those of the time when it was started
    os.environ.clear()
    os.environ.update(variables)
    threading.Thread(target=follow, daemon=True).start()
    if rank:  # what a plugin prints is printed once
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    work: Work | None = None
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            if work:
                work.processes.part()
            sys.stdout.flush()
            os._exit(0)  # the interpreter's own end takes a second or two, with nothing left to do
        try:
            work = work or Work(rank, count, device, meeting, references)
            answer: tuple[str, object] = ("result", work.train(message, pipe))
        except BaseException as error:
            answer = ("error", (portable(error), "".join(traceback.format_exception(error))))
        pipe.send(answer)


class Work:
    """What one process of a group keeps between cells: its setups, with the models that they have loaded."""

    def __init__(self, rank: int, count: int, device: str, meeting: Path, references: Path | None) -> None:
        from xpo_bench.train.data_parallel import Processes

        self.processes = Processes.join(rank, count, device, meeting)
        self.device, self.references = device, references
        self.known: dict[int, tuple[TaskSetup, LanguageModels]] = {}

    def train(self, message: bytes, pipe: Connection) -> tuple[list[Outcome], Mapping[str, object]]:
        """Train the cells of a message; outcomes in the first process only."""
        from xpo_bench.runner.executors.model_cache import LanguageModels

        setup_id, cells, prints = unpacked(message, "--gpus-per-cell")
        if setup_id not in self.known:
            # the setup on the device of this process; a loaded model serves all later cells of the setup
            setup = replace(cells[0].setup, device=self.device)
            self.known[setup_id] = (setup, LanguageModels(setup, self.references, self.processes))
        setup, models = self.known[setup_id]
        for seed, print_ in prints.items():
            # ranks that read other rows would average gradients of different batches without any error
            if setup.data_fingerprint(seed) != print_:
                raise RuntimeError(
                    f"process {self.processes.rank + 1} has read other data than the one that planned the run"
                )
        jobs = [job_of(replace(cell, setup=setup)) for cell in cells]
        first = self.processes.first

        def step(*content: object) -> None:
            pipe.send(("step", content))

        def observed(*content: object) -> None:
            pipe.send(("evaluation", content))

        with one_thread():
            found: tuple[list[Outcome], Mapping[str, object]] = models.train(
                jobs,
                step if first else None,
                observed if first else lambda *_: None,
                [saved_policy(cell) for cell in cells],
            )
        return found
