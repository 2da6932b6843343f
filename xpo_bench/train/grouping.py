"""The examples that one row of the data has become, which stay in one step together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from xpo_bench.contract.examples import Example, Pair, Single
from xpo_bench.data.labels import units
from xpo_bench.train.job import Job


@dataclass(frozen=True)
class Grouping:
    """Rows of the data as consecutive examples: `each` of them, or as many as `parts` says.

    Args:
        examples: of all rows. parts: the examples of every row, by number, where rows differ.
    """

    examples: int
    each: int
    parts: Sequence[range] | None = None

    @property
    def rows(self) -> int:
        return self.examples // self.each if self.parts is None else len(self.parts)

    @property
    def most(self) -> int:
        """Examples of a row, at most."""
        return self.each if self.parts is None else max(map(len, self.parts))

    @property
    def key(self) -> Hashable:
        """Equal where the same schedule of rows is the same schedule of examples."""
        return self.rows, self.each if self.parts is None else tuple(map(len, self.parts))

    def of(self, row: int) -> range:
        """The examples of a row."""
        if self.parts is None:
            return range(row * self.each, (row + 1) * self.each)
        return self.parts[row]

    def spread(self, drawn: np.ndarray) -> np.ndarray:
        """A schedule of rows, (steps, N), as one of examples; rows with fewer than others end in −1."""
        if self.most == 1:
            return drawn
        examples = np.full((self.rows + 1, self.most), -1, np.int32)  # the last line is that of absent rows
        for row, line in enumerate(examples[:-1]):
            line[: len(self.of(row))] = self.of(row)
        return np.asarray(examples[drawn].reshape(len(drawn), -1))


def grouping(job: Job, examples: Sequence[Example]) -> Grouping:
    """How the examples that a run trains on are those of rows of its data.

    The two unpaired examples of a pair stay together, and so do the weighted outcomes of a soft label.
    """
    each = 2 if isinstance(examples[0], Single) and isinstance(job.dataset.train[0], Pair) else 1
    soft = job.budget.labels == "soft" and any(e.share != 1.0 for e in examples)
    return Grouping(len(examples), each, units(examples, each) if soft else None)
