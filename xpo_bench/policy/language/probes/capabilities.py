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
        notes: for the record. `head` is `selected` when only completion positions go through the output
            head, `full` when the model does something around its head, so that full logits are computed and
            then restricted. `prefix` is `shared` when completions share the row of their prompt, `separate`
            when the model cannot. `rows` is `packed` when prompts share a row, `padded`, or `one by one`;
            `attention` is `flex` where that packs them, or says what kept it from doing so. `last_layer` is
            `completions` where that is computed at completion positions alone. `probes` is what was tried
            and is not used: `differs`, or the class of the exception.
    """

    takes_positions: bool = False
    reach: int = 0
    packed: bool = False
    alone_beyond: int = UNBOUNDED
    trims: bool = False
    sampling: Way | None = "batched"
    shrinks: bool = True
    notes: Mapping[str, object] = field(default_factory=dict)
