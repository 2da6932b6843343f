"""What metrics were called in earlier records, so that an old number is never read for another quantity."""

from __future__ import annotations

from typing import Any


def current(values: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a record, or a row of a curve, under today's names; the given ones if none changed.

    Until `token_entropy` had a name of its own, `entropy` held it for sampled policies, in nats per token.
    Those are told by `sample_length`, which is measured on samples alone.
    """
    for prefix in ("", "heldout_"):
        old, new = f"{prefix}entropy", f"{prefix}token_entropy"
        if old in values and new not in values and f"{prefix}sample_length" in values:
            values = {new if name == old else name: value for name, value in values.items()}
    return values
