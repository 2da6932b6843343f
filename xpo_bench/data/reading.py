"""How a file is read: the request that its reader gets, and what is common to all readers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from xpo_bench.data.formats import Row

BATCH = 4096
"""Rows of a table that are read at a time."""
NumberedRows = list[tuple[int, Row]]
Numbered = Iterable[tuple[int, Row]]


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Args:
        where: the file, for messages. limit: rows that are asked for, so that no more are read ahead; None
            for all.
        wanted: names of all columns -> those that are read, for formats that hold columns.
        separator: of .csv files. field: of .json files, the key under which the rows are; None finds them.
    """

    where: str
    limit: int | None = None
    wanted: Callable[[Sequence[str]], Collection[str]] = lambda names: names
    separator: str | None = None
    field: str | None = None

    @property
    def batch(self) -> int:
        return min(self.limit or BATCH, BATCH)


def first_line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
