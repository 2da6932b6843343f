"""The Ray executor: bundles of batches as Ray tasks, which stream what becomes of their cells.

Ray says where a task runs; when one is begun, and what follows when its worker or its node dies, is as with
processes of this machine. A task gets the rows of its task from Ray's object store, once per node, and
answers in JSON.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from xpo_bench.contract.examples import Dataset
from xpo_bench.errors import UsageError
from xpo_bench.runner import keys
from xpo_bench.runner.environment import VARIABLES
from xpo_bench.runner.executors.cluster import Cluster, need_of
from xpo_bench.runner.executors.dispatcher import Attempt, Dispatcher, Message, Worker
from xpo_bench.runner.executors.groups import CellBatch
from xpo_bench.runner.executors.placement import ExecutionConfig, ExecutionFacts
from xpo_bench.runner.executors.subprocesses import RemoteTraceback
from xpo_bench.runner.executors.worker import pack, unpack, work
from xpo_bench.runner.task_setup import TaskSetup

OPTION = "--executor ray"
CHECK_S = 10.0
"""Seconds after which it is looked whether tasks that wait can ever begin."""
FORWARDED = (*VARIABLES, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables that a task has from this process."""


class RayPool(Dispatcher):
    """Runs batches as tasks of the cluster that this process is connected to."""

    def __init__(self, cluster: Cluster, execution: ExecutionConfig, *words: Any) -> None:
        super().__init__(execution, *words)
        self.cluster = cluster
        self.rows: dict[str, object] = {}
        self.waiting = False

    def prepare(self, batches: Sequence[CellBatch]) -> int:
        import ray

        needs = [need(batch.cells[0].setup) for batch in batches]
        self.most = self.execution.workers or max(self.cluster.room(need) for need in needs)
        self.facts = replace(self.execution, workers=self.most).facts
        variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        variables["PYTHONHASHSEED"] = os.environ.get("PYTHONHASHSEED", "0")
        # a fresh process for every task, as the pool has; which task is begun again is decided here
        self.task = ray.remote(num_returns="streaming", max_retries=0, max_calls=1)(serve)
        self.runtime = {"env_vars": variables}
        return self.most

    def room(self) -> bool:
        return len(self.active) < self.most

    def begin(self, bundle: list[Attempt]) -> Worker:
        batches = [attempt.batch for attempt in bundle]
        message = pack(batches, OPTION)
        setup = batches[0].cells[0].setup
        asked = need(setup)
        self.cluster.room(asked)
        rows = self._put(batches)
        references = self.references and self.references.absolute()
        task = self.task.options(
            num_cpus=asked["CPU"],
            num_gpus=asked.get("GPU", 0),
            name=f"xpo-bench: {setup.name}",
            runtime_env=self.runtime,
        )
        stream = task.remote(
            message,
            sources(batches),
            setup.device,
            (os.getcwd(), sys.path),
            references,
            self.facts,
            list(rows),
            *rows.values(),
        )
        return Worker(None, stream, bundle, began=math.inf)  # Ray may begin it much later: its clock waits

    def _put(self, batches: Sequence[CellBatch]) -> dict[str, object]:
        """The rows of batches in Ray's object store, by fingerprint."""
        import ray

        out = {}
        for cell in (cell for batch in batches for cell in batch.cells):
            print_ = cell.setup.data_fingerprint(cell.seed)
            if print_ not in self.rows:
                self.rows[print_] = ray.put(cell.setup.dataset(cell.seed))
            out[print_] = self.rows[print_]
        return out

    def listen(self, patience_s: float | None) -> Iterator[tuple[Worker, Message | None]]:
        import ray

        streams = [worker.channel for worker in self.active]
        ready, _ = ray.wait(streams, timeout=CHECK_S if patience_s is None else min(CHECK_S, patience_s))
        if ready:  # of all those that are, so that none is kept waiting by one that has much to say
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        else:
            self._look()
        for worker in [worker for worker in self.active if worker.channel in ready]:
            try:
                messages = json.loads(ray.get(next(worker.channel)))
            except StopIteration:
                yield worker, None
            except ray.exceptions.RayTaskError as error:
                raise UsageError(f"{OPTION}: a node cannot run cells ({last_line(error)})") from error
            except ray.exceptions.RayError as error:
                worker.ended = f"was lost ({type(error).__name__}: {last_line(error)})"
                yield worker, None
            else:
                for kind, content in messages:
                    yield worker, (kind, content)

    def _look(self) -> None:
        """Refuse to wait for what no node has any more."""
        waiting = [worker for worker in self.active if worker.began == math.inf]
        for worker in waiting:
            self.cluster.room(need(worker.bundle[0].batch.cells[0].setup))
        if waiting and not self.waiting and self.reporter:
            self.waiting = True
            self.reporter.note(f"{len(waiting)} tasks wait for Ray to begin them")

    def part(self, worker: Worker, late: bool) -> None:
        import ray

        if late:
            ray.cancel(worker.channel, force=True)
        worker.ended = worker.ended or "has ended unasked"

    def raised(self, content: Any) -> BaseException:
        kind, message, text = content
        error = UsageError(message) if kind == "UsageError" else RuntimeError(f"{kind}: {message}")
        error.__cause__ = RemoteTraceback(text)
        return error

    def close(self) -> None:
        import ray

        for worker in self.active:
            ray.cancel(worker.channel, force=True)
        self.active, self.rows = [], {}


def need(setup: TaskSetup) -> dict[str, float]:
    return need_of(setup.device, setup.processes)


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[-1]


def sources(batches: Sequence[CellBatch]) -> dict[str, str | None]:
    """What on a machine decides the numbers of cells, by what it is: hashes of code and of model files."""
    out: dict[str, str | None] = {"xpo-bench": keys.host_source()}
    for cell in (cell for batch in batches for cell in batch.cells):
        model = cell.setup.model.name
        out[f"the module of task {cell.setup.task.name}"] = keys.source(type(cell.setup.task))
        out[f"the module of algorithm {cell.algorithm.name}"] = keys.source(type(cell.algorithm))
        out |= {
            f"the module of metric {name}": keys.source(m.function)
            for name, (m, _) in cell.setup.metrics.items()
        }
        if not cell.setup.model.tabular:
            out[f"model {model}"] = keys.model_fingerprint(model)
    return out


# --------------------------------------------------------------------------- in Ray's worker


def serve(
    message: bytes,
    expected: Mapping[str, str | None],
    device: str,
    home: tuple[str, Sequence[str]],
    references: Path | None,
    facts: ExecutionFacts,
    prints: Sequence[str],
    *rows: Dataset,
) -> Iterator[str]:
    """Run the batches of a message; lists of what becomes of them, as JSON.

    Args:
        expected: see `sources`. home: working directory and module path of the driver, used as far as they
            are here too.
        prints: fingerprints of the rows that follow.
    """
    yield json.dumps([("begun", None)])
    # a generator task can only speak when it yields: the cells run in a thread, and this one sends on, in one
    # message, whatever has gathered since the last
    messages: SimpleQueue[Message] = SimpleQueue()

    def emit(kind: str, content: object) -> None:
        messages.put((kind, content))

    def run() -> None:
        _run(message, expected, device, home, references, facts, dict(zip(prints, rows, strict=True)), emit)

    threading.Thread(target=run, daemon=True).start()
    while True:
        gathered = [messages.get()]
        while not messages.empty():
            gathered.append(messages.get())
        yield json.dumps(gathered)
        if gathered[-1][0] in ("done", "error"):
            return


def _run(
    message: bytes,
    expected: Mapping[str, str | None],
    device: str,
    home: tuple[str, Sequence[str]],
    references: Path | None,
    facts: ExecutionFacts,
    rows: Mapping[str, Dataset],
    emit: Callable[[str, object], None],
) -> None:
    try:
        folder, modules = home
        if Path(folder).is_dir():
            os.chdir(folder)
        sys.path += [path for path in modules if path not in sys.path and Path(path).exists()]
        import torch

        torch.set_num_threads(1)
        batches, fingerprints = unpack(message, OPTION)
        check_fingerprints(expected, sources(batches))
        shared = references if references and references.parent.is_dir() else None
        work(batches, fingerprints, "cuda:0" if device == "cuda" else device, shared, facts, emit, rows)
    except BaseException as error:
        emit("error", (type(error).__name__, str(error), "".join(traceback.format_exception(error))))
    else:
        emit("done", None)


def check_fingerprints(expected: Mapping[str, str | None], found: Mapping[str, str | None]) -> None:
    """Refuse a node whose code or model files are not those that the run was planned with."""
    for what, digest in expected.items():
        there = found.get(what)
        if there != digest:
            fault = (
                "is not the one that the run was planned with"
                if there
                else "is not there; put it where every node has it"
            )
            raise UsageError(f"{OPTION}: on node {socket.gethostname()} {what} {fault}")
