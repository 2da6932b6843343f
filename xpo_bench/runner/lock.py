"""One process at a time writes to a run directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from xpo_bench.errors import UsageError
from xpo_bench.runner.store import write_atomic

POLL_S = 0.2


@contextmanager
def occupied(root: Path, wait: bool, note: Callable[[str], None]) -> Iterator[None]:
    """Hold a run directory; a process that dies lets go of it.

    Args:
        wait: for another process that holds it, in place of refusing. note: tells of that.

    Raises:
        UsageError: another process holds it, with its number and machine.
    """
    # the system's own lock, which ends with its process: a pid in a file would outlive a kill. Who holds it
    # stands beside it, since a locked file cannot be read everywhere
    lock, owner = FileLock(root / ".lock"), root / ".owner.json"
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = _owner(owner)
            if not wait:
                raise UsageError(
                    f"{root} is being written by {who}; --wait waits for it, --out DIR writes elsewhere"
                ) from None
            note(f"waiting for {who}, which writes {root}")
            lock.acquire(poll_interval=POLL_S)
    except NotImplementedError:
        note(f"{root} is on a file system without locks: see yourself that no other run writes to it")
        yield
        return
    try:
        write_atomic(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        return f"process {int(found['pid'])} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
