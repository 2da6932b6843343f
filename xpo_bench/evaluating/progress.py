"""What an evaluation says while it works: lines on stderr, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 2.0
"""Seconds between lines."""


class Progress:
    """Tells of the checkpoint at hand, of how many, and how long the others will take.

    Args:
        say: prints one line, or nothing. total: checkpoints that are to be measured.
    """

    def __init__(self, say: Callable[[str], None], total: int) -> None:
        self.say, self.total, self.done = say, total, 0
        self._began = self._last = time.monotonic()

    def tell(self, what: str) -> None:
        """What is being done now; said where the last line is some seconds old."""
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._last = now
            self.say(f"[{self.done + 1}/{self.total}] {what}{self._left(now)}")

    def measured(self, what: str, seconds: float) -> None:
        """A checkpoint is done."""
        self.done += 1
        self._last = now = time.monotonic()
        self.say(f"[{self.done}/{self.total}] {what}: measured in {seconds:.1f} s{self._left(now)}")

    def _left(self, now: float) -> str:
        if not self.done or self.done == self.total:
            return ""
        return f", about {(now - self._began) / self.done * (self.total - self.done):.0f} s left"
