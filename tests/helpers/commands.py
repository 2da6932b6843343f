"""The command under test: as a process of its own, or in a fork of a process that is warm."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ask_warm

COMMAND = Path(sys.executable).parent / "xpo-bench"
WARM = Path(__file__).parents[1] / "warm.py"


@dataclass(frozen=True)
class Finished:
    """An ended command: exit status and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as the one JSON document that it has to be."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Command = Callable[..., Finished]


def environment(more: dict[str, str]) -> dict[str, str]:
    """This process's variables without the suite's own, plus `more`; one thread, offline, a fixed width."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("XPO_BENCH_") and k not in ("PYTHONPATH", "FORCE_COLOR")
    }
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "dumb"} | more


class Warm:
    """A process that has the heavy modules imported already and forks for every command.

    Args:
        env: variables of the process. preload: `language` for what language models need too, `least` for no
            more than every run needs. python: its interpreter, whose environment has the suite.
    """

    def __init__(self, env: dict[str, str], *preload: str, python: Path = Path(sys.executable)) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="warm-"))  # short: names of sockets are
        self.socket = self.home / "socket"
        self.name = str(python.parent / "xpo-bench")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.socket))
            server.listen()
            self.process = subprocess.Popen(
                [str(python), "-P", str(WARM), str(server.fileno()), *preload],
                stdin=subprocess.PIPE,
                env=environment(env),
                pass_fds=[server.fileno()],
            )

    def command(self, folder: Path, env: dict[str, str]) -> Command:
        """`xpo-bench` in a folder; what a command is called with comes on top of `env`."""

        def run(*words: object, **more: str) -> Finished:
            out, err = folder / ".stdout", folder / ".stderr"
            with Path(os.devnull).open() as none, out.open("wb") as stdout, err.open("wb") as stderr:
                files = [file.fileno() for file in (none, stdout, stderr)]
                argv = [self.name, *map(str, words)]
                code = ask_warm.ask(str(self.socket), argv, str(folder), environment(env | more), files)
            return Finished(code, out.read_text("utf-8"), err.read_text("utf-8"))

        return run

    def script(self, folder: Path) -> Path:
        """Write a stand-in for the script `xpo-bench` that has its words carried out here; its path."""
        script = folder / "xpo-bench"
        words = f'"{sys.executable}" -SE "{ask_warm.__file__}" "{self.socket}" "{self.name}" "$@"'
        script.write_text(f"#!/bin/sh\nexec {words}\n", "utf-8")
        script.chmod(0o755)
        return script

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)
        shutil.rmtree(self.home)
