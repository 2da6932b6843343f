"""Whether rows may stand side by side: no token to its right, and no other row, changes what a row gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.probes.trial import BEYOND, LONGEST, Trial, close, rows_of
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.windows import UNBOUNDED

CAUSAL = 1e-4
"""What features of a token may differ by when tokens behind it change, as a fraction of the largest number.
"""


def alone_beyond(trial: Trial) -> tuple[int, Trial]:
    """The longest row that may have others beside it, and the trial with rows up to that length.

    In a causal model nothing to the right of a token reaches it, so that padding on the right needs no mask.
    A model with a window or a compressed memory may be causal up to some length alone.

    Raises:
        UsageError: the model is not causal.
    """
    if (found := _side_by_side(trial, trial.rows, "padding")) is not None:
        return UNBOUNDED, found
    longest = len(trial.rows[0].ids)
    for limit in sorted((limit for limit in trial.limits if limit < longest), reverse=True):
        shorter = rows_of(trial.ids, limit)
        what = f"padding of rows of {limit} tokens"
        if (found := _side_by_side(trial, shorter, what)) is not None:
            near = shorter if limit <= trial.within else trial.near
            return limit, replace(found, rows=shorter, near=near, context=min(trial.context, limit))
    if _causal(trial, trial.near[0]):
        return 0, trial
    raise UsageError(f"{trial.model} is not causal: later tokens change earlier ones")


def unseen(trial: Trial, beyond: int) -> int:
    """The same, where windows were too long to be tried: a model that hides tokens by a mask of its own may
    do more there.
    """
    hidden = [limit for limit in trial.limits if limit + BEYOND > LONGEST]
    return min(beyond, *hidden) if hidden and trial.raised("packing") else beyond


def _side_by_side(trial: Trial, rows: Sequence[Row], what: str) -> Trial | None:
    """The trial with what padding changes, by rounding alone; None where it changes more."""
    if not _causal(trial, rows[0]):
        trial.failed["causality"] = f"differs in rows of {len(rows[0].ids)} tokens"
        return None
    alone = trial.alone(rows)
    if not trial.agrees(what, lambda: trial.together(rows), alone):
        return None
    return replace(trial, noise=float((trial.together(rows) - alone).abs().max() / alone.abs().max()))


def _causal(trial: Trial, row: Row) -> bool:
    """Whether features of a prefix stay the same behind other tokens, and when the row ends there."""
    count = len(row.ids)
    other = Row((*row.ids[: count // 2], *reversed(row.ids[count // 2 :])), row.start)
    longer = [trial.network.features(input_ids=trial.row_ids(r))[0] for r in (row, other)]
    for end in {count // 2, (count - 3) | 1}:  # one of them is odd
        if end > 0:
            short = trial.network.features(input_ids=trial.row_ids(Row(row.ids[:end], 1)))[0]
            # the two rows have the first half in common
            shared = longer if end == count // 2 else longer[:1]
            if not all(close(long[:, :end], short, CAUSAL) for long in shared):
                return False
    return True
