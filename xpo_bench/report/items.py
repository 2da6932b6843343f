"""Items: how the outcomes of evaluated pairs are read from a run directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xpo_bench.runner.columns import read as read_file

REMEMBERED = 8192
"""Item tables in memory at most."""
TIE, CHOSEN_LONGER, CHOSEN_SHORTER = 0, 1, 2
"""Strata of pairs by the lengths of their completions."""

NEEDED = frozenset({"item", "cluster", "split", "correct", "chosen_length", "rejected_length"})
"""Columns without which a table of items says nothing."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The held-out items of one cell, and what the policy made of them.

    Args:
        item, cluster: of every item. stratum: by the lengths of its completions. correct: column -> 0, ½ or 1
            of every item, NaN where it is not known; `correct` is at the last evaluation, `correct_at_1`
            where the KL of the path first reached 1 nat.
    """

    item: Sequence[str]
    cluster: Sequence[str]
    stratum: NDArray[np.int64]
    correct: dict[str, NDArray[np.float64]]


ItemReader = Callable[[str], Outcomes | None]
"""Key of a cell -> its held-out items; None where it has none."""


def item_reader(root: Path) -> ItemReader:
    """Reads `RUN/items/KEY.parquet`, and remembers some; what cannot be read is as if it was not there."""

    @lru_cache(maxsize=REMEMBERED)
    def read(key: str) -> Outcomes | None:
        path = root / "items" / f"{key}.parquet"
        try:
            columns = read_file(path).to_pydict() if path.is_file() else {}
        except (OSError, ValueError):  # what pyarrow raises of a file that is no parquet
            return None
        if NEEDED - columns.keys():
            return None
        held = [i for i, split in enumerate(columns["split"]) if split == "heldout"]
        if not held:
            return None
        try:
            numbers = {
                name: np.array([column[i] for i in held], dtype=np.float64)
                for name, column in columns.items()
                if name.startswith("correct") or name.endswith("_length")
            }
        except (TypeError, ValueError):  # texts where numbers should be
            return None
        longer = numbers.pop("chosen_length") - numbers.pop("rejected_length")
        stratum = np.where(longer > 0, CHOSEN_LONGER, np.where(longer < 0, CHOSEN_SHORTER, TIE))
        return Outcomes(
            [columns["item"][i] for i in held], [columns["cluster"][i] for i in held], stratum, numbers
        )

    return read


def no_items(key: str) -> Outcomes | None:
    """The reader of a run whose items nobody wants read."""
    return None
