"""The parts, most valuable first, and one part in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

ROOT = Path(__file__).parents[2]
GRACE_S = 5.0
"""Seconds that a part has to end by itself once it has been told to."""
TAIL = 2000
"""Characters of what a part printed that are kept where it did not end well."""

Status = Literal["ok", "failed", "timeout", "no time left"]


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        what: it finds out, for people. seconds: its limit in a run of twelve minutes.
        command: what runs it; the file of its rows is appended. By default the function of its name.
    """

    name: str
    what: str
    seconds: float
    command: tuple[str, ...] = ()


class Found(TypedDict):
    """What came of a part; `rows` were written one by one, so that those before a failure are there."""

    part: str
    what: str
    status: Status
    seconds: float
    limit_s: float
    rows: list[dict[str, Any]]
    error: NotRequired[str]


PARTS = (
    Part("tests", "scores, gradients, samples and a run of every algorithm against the CPU", 170),
    Part("first", "the README's first command", 80),
    Part("speed", "pairs per second in bfloat16 against a loop of two forward passes, and TRL", 160),
    Part("packed", "FlexAttention over packed rows against padded rows", 60),
    Part("adapters", "sweeps of LoRA adapters: 1, 4, 16 and 64 runs", 90),
    Part("ensembles", "copies of a small model that train as one", 40),
    Part("memory", "peak memory: all weights, activations computed again, adapters", 70),
    Part("deterministic", "two runs with --deterministic, bit for bit", 50),
)


def run_part(part: Part, device: str, limit_s: float, rows: Path, log: Path) -> Found:
    """Run a part in a process of its own, which is ended with all that it started when its time is over.

    Args:
        rows: a file that the part rewrites after every row. log: what it prints is appended to it.
    """
    command = part.command or (sys.executable, "-m", "benchmarks.gpu.child", part.name, device)
    begun = time.monotonic()
    with log.open("ab") as printed:
        before = printed.tell()
        process = subprocess.Popen(
            [*command, str(rows)],
            cwd=ROOT,
            env=environment(part),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status: Status = "timeout"
        else:
            status = "failed" if process.returncode else "ok"
        finally:
            _end(process)
    found = Found(
        part=part.name,
        what=part.what,
        status=status,
        seconds=round(time.monotonic() - begun, 1),
        limit_s=round(limit_s, 1),
        rows=read_rows(rows),
    )
    if status != "ok":
        found["error"] = log.read_bytes()[before:].decode("utf-8", "replace")[-TAIL:]
    return found


def environment(part: Part) -> dict[str, str]:
    """The variables of a part: nothing is fetched, and modules are found from every directory.

    What is measured is one GPU, also where there are more; the tests look at several.
    """
    found = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if part.name != "tests":
        found.setdefault("CUDA_VISIBLE_DEVICES", "0")
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if folders:
        found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(folder) for folder in folders)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its session; what has ended already is left alone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            if number == signal.SIGKILL or not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows that a part has written so far."""
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else []
    return found


def write_atomic(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = file.with_suffix(f"{file.suffix}.new")
    beside.write_text(text, "utf-8")
    beside.replace(file)


def chosen(names: Sequence[str]) -> list[Part]:
    """Parts by their names, in the order of their value.

    Raises:
        ValueError: a name that no part has.
    """
    if unknown := set(names) - {part.name for part in PARTS}:
        raise ValueError(f"{sorted(unknown)[0]}: no such part; there are {', '.join(p.name for p in PARTS)}")
    return [part for part in PARTS if part.name in names]
