"""A pair of new processes, one per installation, alive at once and interleaved block by block."""

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
from typing import Any, Literal, TypedDict, cast

from xpo_bench.compare.speed.installations import Installation, process_group
from xpo_bench.errors import UsageError

SCRIPT = Path(__file__).with_name("worker.py")
Side = Literal["old", "new"]
NAMES: tuple[Side, Side] = ("old", "new")
Clock = Literal["cpu_s", "wall_s", "gpu_s"]
Versions = dict[str, str]
"""Versions of xpo-bench, torch and python."""
WARM_S, BLOCK_S = 0.5, 0.1
PATIENCE_S = 600.0
"""Seconds without an answer after which a process counts as hung."""

Cell = tuple[str, str]
"""(algorithm, workload)"""


class Block(TypedDict):
    """A number of training steps and the seconds that they took; gpu_s is None on a CPU."""

    steps: int
    cpu_s: float
    wall_s: float
    gpu_s: float | None


class Pair(TypedDict):
    """One cell, measured by one pair of processes: which side began, and the blocks in the order of time."""

    began: Side
    old: list[Block]
    new: list[Block]


class Undecided(Exception):
    """A process died, hung or answered nonsense during a measurement: there is no verdict (exit status 4)."""


@dataclass(frozen=True)
class Protocol:
    """How a pair is measured.

    Attributes:
        pairs: of new processes. blocks: per side and pair. device: `cpu` or a CUDA device.
        block_s: seconds of a block at least. warm_s: seconds of training before the first one.
        patience_s: see `PATIENCE_S`.
    """

    pairs: int = 8
    blocks: int = 12
    device: str = "cpu"
    block_s: float = BLOCK_S
    warm_s: float = WARM_S
    patience_s: float = PATIENCE_S

    @property
    def gate(self) -> Clock:
        """The clock that decides."""
        return "gpu_s" if self.device.startswith("cuda") else "cpu_s"


@dataclass
class Worker:
    """A process of one installation, and the lines that it prints."""

    installation: Installation
    name: Side
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
            UsageError: the installation reports an error. Undecided: the answer makes no sense.
        """
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # answer() reports its death
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line; errors as in `ask`."""
        try:
            line = self.lines.get(timeout=self.patience_s)
        except queue.Empty:
            raise Undecided(f"{self.who}: no answer for {self.patience_s:g} s") from None
        if not line:
            raise Undecided(f"{self.who}: the measuring process {self._how()}{self._last_words()}")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            text = line.decode(errors="replace").strip()[:80]
            raise Undecided(f"{self.who}: the measuring process answers {text!r}")
        if "error" in message:
            raise UsageError(f"{self.who}: {message['error']}")
        return message

    @property
    def who(self) -> str:
        """`OLD (.venv-old)`, for messages."""
        return f"{self.name.upper()} ({self.installation.name})"

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
    installations: Mapping[Side, Installation], order: Sequence[Side], patience_s: float
) -> Iterator[dict[Side, Worker]]:
    """Both workers, started in an order; the end of the block ends them, and nothing of them stays."""
    with tempfile.TemporaryDirectory(prefix="xpo-bench-ab-") as folder, contextlib.ExitStack() as stack:
        workers: dict[Side, Worker] = {}
        # a second thread that waits for work would count as work
        variables = {"OMP_NUM_THREADS": "1"} | os.environ | {"TMPDIR": folder}
        for name in order:
            errors = Path(folder, f"{name}.stderr")
            with errors.open("wb") as stderr:
                started = process_group(
                    [str(installations[name].python), "-I", str(SCRIPT)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=folder,
                    env=variables,
                )
                process = stack.enter_context(started)
            workers[name] = Worker(installations[name], name, process, errors, patience_s)
            workers[name].listen()
        yield workers


def hello(workers: Mapping[Side, Worker]) -> dict[Side, Versions]:
    """The versions that either side has installed.

    Raises:
        UsageError: an interpreter cannot import xpo_bench.
    """
    out: dict[Side, Versions] = {}
    for name in NAMES:
        try:
            out[name] = workers[name].answer()["hello"]
        except UsageError as error:
            raise UsageError(f"{error} (its environment must have xpo_bench installed)") from None
        except KeyError:
            raise Undecided(f"{workers[name].who}: the measuring process names no versions") from None
    return out


def measure(
    installations: Mapping[Side, Installation], cells: Sequence[Cell], protocol: Protocol, rng: random.Random
) -> tuple[dict[Cell, Pair], dict[Side, Versions]]:
    """One new pair of processes, which measures every cell, in random order.

    Args:
        installations: `old` and `new`. rng: draws which side is started first, which begins, and the order of
            the cells.

    Returns:
        each cell's pair, with as many blocks on either side; and the versions that either side has installed.

    Raises:
        UsageError: an installation cannot run a workload. Undecided: a process failed.
    """
    out: dict[Cell, Pair] = {}
    # The order of starts, of cells and of blocks is drawn, so that drift of the machine favours neither side.
    with pair_of(installations, rng.sample(NAMES, 2), protocol.patience_s) as workers:
        installed = hello(workers)
        for number, cell in enumerate(rng.sample(list(cells), len(cells))):
            order = rng.sample(NAMES, 2)
            for name in order:
                _start(workers[name], cell, protocol, number)
            found: dict[Side, list[Block]] = {name: [] for name in NAMES}
            # One process waits while the other computes: blocks that follow each other see the same machine.
            for _ in range(protocol.blocks):
                for name in order:
                    found[name].append(_block(workers[name], protocol))
            for name in order:
                workers[name].ask(do="stop")
            out[cell] = {"began": order[0], "old": found["old"], "new": found["new"]}
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


def _block(worker: Worker, protocol: Protocol) -> Block:
    """One block, whose numbers are checked: it comes from another process and perhaps another release."""
    block = worker.ask(do="block")
    steps, gated, wall = block.get("steps"), block.get(protocol.gate), block.get("wall_s")
    counts = isinstance(steps, int) and steps > 0
    if not (counts and all(isinstance(s, float | int) and s > 0 for s in (gated, wall))):
        raise Undecided(f"{worker.who}: a block of {steps} steps, {gated} s, {wall} s wall time")
    return cast(Block, block)
