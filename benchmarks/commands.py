"""Whole commands of two installations, interleaved: ratios of wall time and of processor time.

Example:
    python -m benchmarks.commands --against 6a02a6e --rounds 5 --out results/commands.json

`--against` names a git revision or a virtual environment. A revision is built into an environment of its own,
which holds the revision's packages alone and finds all others where this interpreter does; so is `--this`, if
it names a revision (by default: what this interpreter imports). Each round runs every command once with each
installation, one after the other, and the next round begins with the other one. A first run of each is not
counted: it fills the caches of files.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from benchmarks.scale import write_run
from xpo_bench.compare.speed.installations import Installation, look, prepare
from xpo_bench.errors import UsageError
from xpo_bench.runner import environment

RUN = ("run", "--algos", "dpo", "--tasks", "bandit", "--steps", "500", "--seeds")
COMMANDS: Mapping[str, Sequence[str]] = {
    "help": ("--help",),
    "list algos": ("list", "algos"),
    "one cell": (*RUN, "1"),
    "500 cells": (*RUN, "500"),
    "first command": ("run", "--algos", "dpo,ipo"),
    "show": ("show", "{records}"),
}
"""What is measured, by its name. `{records}` is a run directory of many cells, written once."""

PR_SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl(2)."""

Side = Literal["old", "new"]
Clock = Literal["wall_s", "cpu_s"]


class Taken(TypedDict):
    """Seconds of one command: of wall time, and of the processor in it and in all processes it started."""

    wall_s: float
    cpu_s: float


class Ratio(TypedDict):
    """New by old: the median of the rounds, the lowest and the highest."""

    median: float
    low: float
    high: float


class Line(TypedDict):
    """One command: what each round took, and the ratios."""

    command: str
    old: list[Taken]
    new: list[Taken]
    ratio: dict[Clock, Ratio]


def main() -> None:
    """Measure, print a table, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", required=True, metavar="REV", help="git revision or environment")
    parser.add_argument("--this", default=sys.prefix, metavar="REV", help="what is compared with it")
    parser.add_argument("--commands", default=",".join(COMMANDS), metavar="A,B", help="names, see the table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=100_000, help="of the run directory that is shown")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    wanted = asked.commands.split(",")
    if unknown := [name for name in wanted if name not in COMMANDS]:
        parser.error(f"no command {unknown[0]!r}; want some of {', '.join(COMMANDS)}")
    whole = adopt()
    if not whole:
        print("cpu is without what a pool's processes take: this system cannot adopt them", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="commands-") as scratch:
        folder = Path(scratch)
        try:
            sides: dict[Side, Installation] = {
                "old": _built(asked.against, folder / "old"),
                "new": _built(asked.this, folder / "new"),
            }
        except UsageError as error:
            parser.error(str(error))
        records = folder / "records"
        if "show" in wanted:
            write_run(records, asked.cells)
        lines = [measure(name, sides, asked.rounds, folder, records) for name in wanted]
    found = {
        "against": _told(sides["old"]),
        "this": _told(sides["new"]),
        "rounds": asked.rounds,
        "cells": asked.cells,
        "cpu_of_pools": whole,
        "machine": {
            "processor": environment.describe("cpu")["processor"],
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "commands": lines,
    }
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _built(name: str, folder: Path) -> Installation:
    return prepare(look(name), folder, lambda line: print(line, file=sys.stderr))


def _told(side: Installation) -> str:
    return side.commit or Path(side.name).name


def measure(name: str, sides: Mapping[Side, Installation], rounds: int, folder: Path, records: Path) -> Line:
    """Run a command `rounds` times with each side, in turn, and print its line of the table."""
    taken: dict[Side, list[Taken]] = {"old": [], "new": []}
    order: list[Side] = ["old", "new"]
    for number in range(rounds + 1):
        for side in order:
            one = timed(sides[side], [word.format(records=records) for word in COMMANDS[name]], folder)
            if number:
                taken[side].append(one)
        order.reverse()
    clocks: tuple[Clock, Clock] = ("wall_s", "cpu_s")
    line = Line(
        command=name,
        old=taken["old"],
        new=taken["new"],
        ratio={clock: ratio(taken["old"], taken["new"], clock) for clock in clocks},
    )
    print(told(line), flush=True)
    return line


def timed(side: Installation, words: Sequence[str], folder: Path) -> Taken:
    """What `xpo-bench WORDS` takes in a fresh directory.

    Raises:
        SystemExit: it failed.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        with (place / "said").open("w+") as said:
            before, begun = os.times(), time.perf_counter()
            done = subprocess.run(
                [str(side.python), "-m", "xpo_bench", *words],
                cwd=place,
                stdout=said,
                stderr=said,
                check=False,
            )
            wall = time.perf_counter() - begun
            wait_for_all()
            after = os.times()
            if done.returncode:
                said.seek(0)
                raise SystemExit(f"{side.name}: xpo-bench {' '.join(words)} failed:\n{said.read()[-2000:]}")
    finally:
        shutil.rmtree(place)
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return {"wall_s": wall, "cpu_s": cpu}


def adopt() -> bool:
    """Become the parent of what the commands leave behind, where the system can do that (Linux).

    The times of children count once they have been waited for. The server that a pool forks its processes
    from is waited for by nobody, and with it they would not count.
    """
    try:
        adopted: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (AttributeError, OSError, TypeError):
        return False
    return adopted == 0


def wait_for_all() -> None:
    """Wait for every process that a command has left behind: they end with it, some moments later."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def ratio(old: Sequence[Taken], new: Sequence[Taken], clock: Clock) -> Ratio:
    """The ratios of the rounds, in which both sides met the same machine."""
    found = [b[clock] / a[clock] for a, b in zip(old, new, strict=True)]
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def told(line: Line) -> str:
    """One line of the table: median seconds of both, and the ratios."""
    parts = [f"{line['command']:14}"]
    clocks: tuple[tuple[Clock, str], ...] = (("wall_s", "wall"), ("cpu_s", "cpu"))
    for clock, called in clocks:
        of = line["ratio"][clock]
        old, new = (statistics.median(one[clock] for one in taken) for taken in (line["old"], line["new"]))
        parts.append(
            f"{called} {old:7.2f} s -> {new:7.2f} s  x {of['median']:.2f} ({of['low']:.2f}-{of['high']:.2f})"
        )
    return "   ".join(parts)


if __name__ == "__main__":
    main()
