"""Progress of a command that has no bar to show: lines on stderr, once it takes longer than a moment."""

from __future__ import annotations

import threading
from types import TracebackType

from xpo_bench.cli.base import say

FIRST, AGAIN = 2.0, 10.0
"""Seconds until the first line of progress, and between further ones."""


class Progress:
    """Says on stderr what is being done, once it has taken `first` seconds, and again after every `again`."""

    def __init__(self, quiet: bool, first: float = FIRST, again: float = AGAIN) -> None:
        self._first, self._again = first, again
        self._now, self._said = "", ""
        self._ended = threading.Event()
        self._thread = None if quiet else threading.Thread(target=self._watch, daemon=True)

    def tell(self, what: str, done: int, total: int) -> None:
        """What is being done, and how much of it, out of `total` where that is known."""
        self._now = f"{what}: {done:,} of {total:,}" if total else what

    def _watch(self) -> None:
        pause = self._first
        while not self._ended.wait(pause):
            if self._now != self._said:
                self._said = self._now
                say(self._said)
            pause = self._again

    def __enter__(self) -> Progress:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
