"""Imports that make much and leave it there, without a search for garbage among it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing(owner: bool = False) -> Iterator[None]:
    """Imports within it are not searched for garbage, nor ever again in a process that a command owns.

    Args:
        owner: this is that command. In a notebook, what was there before must stay collectable: there nothing
            is frozen.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if owner or gc.get_freeze_count():
            gc.freeze()
        if collecting:
            gc.enable()
