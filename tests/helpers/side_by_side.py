"""Runs commands at the same time, a core for each: `side_by_side.py 'mypy' 'ruff check .'`.

What each prints comes in one piece, in their order; the status is that of the first one that fails.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def run(command: str) -> tuple[str, int]:
    """What a line of the shell prints, and its status."""
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout, done.returncode


def main(commands: list[str]) -> int:
    statuses = []
    with ThreadPoolExecutor(len(commands)) as pool:
        for command, (said, status) in zip(commands, pool.map(run, commands), strict=True):
            print(f"$ {command}\n{said}", end="", flush=True)
            statuses.append(status)
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
