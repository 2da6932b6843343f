"""A pair of fresh processes, one per side, alive at once and driven in turn, so that their blocks alternate."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xpo_bench.compare.speed.installations import Installation, group
from xpo_bench.errors import UsageError

SCRIPT = Path(__file__).with_name("worker.py")
NAMES = ("old", "new")
WARM_S, BLOCK_S = 0.5, 0.1
PATIENCE_S = 600.0
"""Seconds without an answer after which a process is given up."""

Cell = tuple[str, str]
"""(algorithm, workload)"""


class Undecided(Exception):
    """A process died, hung or answered nonsense while it was measured: there is no verdict (exit status 4)."""


@dataclass(frozen=True)
class Protocol:
    """How a pair is measured.

    Attributes:
        pairs: fresh process pairs. blocks: per side and pair. device: `cpu` or a CUDA device.
        block_s: seconds of a block at least. warm_s: seconds of training before the first one.
        patience_s: see `PATIENCE_S`.
    """

    pairs: int = 8
    blocks: int = 12
    device: str = "cpu"
    block_s: float = BLOCK_S
    warm_s: float = WARM_S
    patience_s: float = PATIENCE_S


@dataclass
class Worker:
    """A process of one side, and its lines."""

    side: Installation
    name: str
    process: subprocess.Popen[bytes]
    errors: Path
    patience_s: float
    lines: queue.Queue[bytes] = field(default_factory=queue.Queue)

    def listen(self) -> None:
        """Collect lines in a thread, so that waiting for one can end."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        with contextlib.suppress(ValueError, OSError):  # closed at the end
            for line in self.process.stdout:
                self.lines.put(line)
        self.lines.put(b"")

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return its answer.

        Raises:
            UsageError: the side says that it cannot. Undecided: it says nothing sensible.
        """
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # its death is told of below
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line."""
        who = f"{self.name.upper()} ({self.side.name})"
        try:
            line = self.lines.get(timeout=self.patience_s)
        except queue.Empty:
            raise Undecided(f"{who}: no answer for {self.patience_s:g} s") from None
        if not line:
            raise Undecided(f"{who}: the measuring process {self._how()}{self._last_words()}")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise Undecided(
                f"{who}: the measuring process answers {line.decode(errors='replace').strip()[:80]!r}"
            )
        if "error" in message:
            raise UsageError(f"{who}: {message['error']}")
        return message

    def _how(self) -> str:
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def _last_words(self) -> str:
        lines = [line for line in self.errors.read_text("utf-8", "replace").splitlines() if line.strip()]
        return f": {lines[-1].strip()[:200]}" if lines else ""


@contextlib.contextmanager
def pair_of(
    sides: Mapping[str, Installation], order: Sequence[str], patience_s: float
) -> Iterator[dict[str, Worker]]:
    """Both workers, started in an order; they are ended with the block, and nothing of them stays."""
    with tempfile.TemporaryDirectory(prefix="xpo-bench-ab-") as folder, contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        # a second thread that waits for work would count as work
        variables = {"OMP_NUM_THREADS": "1"} | os.environ | {"TMPDIR": folder}
        for name in order:
            errors = Path(folder, f"{name}.stderr")
            with errors.open("wb") as stderr:
                started = group(
                    [str(sides[name].python), "-I", str(SCRIPT)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=folder,
                    env=variables,
                )
                process = stack.enter_context(started)
            workers[name] = Worker(sides[name], name, process, errors, patience_s)
            workers[name].listen()
        yield workers


def hello(workers: Mapping[str, Worker]) -> dict[str, Any]:
    """What either side has installed.

    Raises:
        UsageError: an interpreter cannot import xpo_bench.
    """
    out = {}
    for name in NAMES:
        try:
            out[name] = workers[name].answer()["hello"]
        except UsageError as error:
            raise UsageError(f"{error} (its environment must have xpo_bench installed)") from None
        except KeyError:
            raise Undecided(
                f"{name.upper()} ({workers[name].side.name}): the measuring process does not say what it is"
            ) from None
    return out


def measure(
    sides: Mapping[str, Installation], cells: Sequence[Cell], protocol: Protocol, rng: random.Random
) -> tuple[dict[Cell, dict[str, Any]], dict[str, Any]]:
    """One fresh pair, which measures every cell, in random order.

    Args:
        sides: `old` and `new`. rng: decides which side is started first, which begins, and the order of the
            cells.

    Returns:
        per cell {"began": side, "old": [block], "new": [block]} with as many blocks on either side, each with
        `steps`, `cpu_s`, `wall_s` and `gpu_s` (None on a CPU); and what either side has installed.

    Raises:
        UsageError: a side cannot run a workload. Undecided: a process failed.
    """
    out: dict[Cell, dict[str, Any]] = {}
    with pair_of(sides, rng.sample(NAMES, 2), protocol.patience_s) as workers:
        installed = hello(workers)
        for number, cell in enumerate(rng.sample(list(cells), len(cells))):
            order = rng.sample(NAMES, 2)
            for name in order:
                _start(workers[name], cell, protocol, number)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
            for _ in range(protocol.blocks):
                for name in order:
                    found[name].append(_block(workers[name], protocol))
            for name in order:
                workers[name].ask(do="stop")
            out[cell] = {"began": order[0], **found}
    return out, installed


def _start(worker: Worker, cell: Cell, protocol: Protocol, number: int) -> None:
    """Warm up and calibrate."""
    algorithm, workload = cell
    command = {
        "algorithm": algorithm,
        "workload": workload,
        "device": protocol.device,
        "out": f"{worker.name}-{number}",
        "block_s": protocol.block_s,
        "warm_s": protocol.warm_s,
    }
    try:
        worker.ask(do="start", **command)
    except UsageError as error:
        raise UsageError(f"{error} ({algorithm} on {workload})") from None


def _block(worker: Worker, protocol: Protocol) -> dict[str, Any]:
    """One block, with sensible numbers."""
    block = worker.ask(do="block")
    gated = block.get("gpu_s" if protocol.device.startswith("cuda") else "cpu_s")
    steps, wall = block.get("steps"), block.get("wall_s")
    if not (
        isinstance(steps, int)
        and steps > 0
        and all(isinstance(s, float | int) and s > 0 for s in (gated, wall))
    ):
        raise Undecided(
            f"{worker.name.upper()} ({worker.side.name}): a block of {steps} steps, {gated} s, {wall} s wall time"
        )
    return block
