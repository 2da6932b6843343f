"""What a run leaves of every item it was evaluated on: the evidence beneath its accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpo_bench.contract.metric import Array
from xpo_bench.metrics.attained import BUDGETS

TEXTS = ("split", "item", "cluster")
"""Columns of text."""
SCORES = ("chosen_logp", "rejected_logp", "chosen_log_ratio", "rejected_log_ratio")
"""Columns of nats: summed over tokens, and against the initial policy."""
LENGTHS = ("chosen_length", "rejected_length")
"""Columns of whole numbers, tokens; all others hold real ones."""
AT = {budget: f"correct_at_{budget:g}" for budget in BUDGETS}
"""Budget -> the column of who was right there."""
COLUMNS = (*TEXTS, *SCORES, *LENGTHS, "correct", *AT.values())


@dataclass(frozen=True)
class Items:
    """The items of one run, a row each.

    Args:
        texts: `split`, `item` and `cluster`. values: every other column, NaN where there is nothing.
    """

    texts: Mapping[str, Sequence[str]]
    values: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.texts["item"])

    def plain(self) -> dict[str, list[Any]]:
        """The columns as lists that JSON can hold, None where there is nothing."""
        numbers = {n: [None if v != v else v for v in column.tolist()] for n, column in self.values.items()}
        return {n: list(column) for n, column in self.texts.items()} | numbers

    @classmethod
    def of_plain(cls, columns: Mapping[str, Sequence[Any]]) -> Items:
        """What `plain` was made of."""
        texts = {n: columns[n] for n in TEXTS}
        return cls(texts, {n: np.array(c, dtype=np.float64) for n, c in columns.items() if n not in TEXTS})


def joined(parts: Sequence[Items]) -> Items:
    """The items of several sets, one after the other."""
    return Items(
        {name: [text for part in parts for text in part.texts[name]] for name in TEXTS},
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
    )
