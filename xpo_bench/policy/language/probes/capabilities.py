"""What is right for the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xpo_bench.policy.language.decoding import Way
from xpo_bench.policy.language.windows import UNBOUNDED


@dataclass(frozen=True)
class Capabilities:
    """What is right for a model, and is therefore done.

    Args:
        takes_positions: it can be told positions, and those that it takes untold are 0, 1, 2, ...
        reach: tokens of a row that may share its prompt, at most; 0 where none may.
        packed: prompts share a row.
        alone_beyond: longer rows, in tokens, go by themselves and whole, because what stands beside or behind
            their tokens would change them.
        trims: the last layer is computed at completion positions alone.
        sampling: how prompts are continued; None where no way agrees with the scorer.
        shrinks: rows that have ended leave the batch.
        notes: for the record.
    """

    takes_positions: bool = False
    reach: int = 0
    packed: bool = False
    alone_beyond: int = UNBOUNDED
    trims: bool = False
    sampling: Way | None = "batched"
    shrinks: bool = True
    notes: Mapping[str, object] = field(default_factory=dict)
