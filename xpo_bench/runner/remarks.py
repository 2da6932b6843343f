"""What to know of a record beside its numbers, in one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cannot_see(record: Mapping[str, Any]) -> list[str]:
    """What the task of a record cannot see, for the notes under its tables; equal ones are shown once."""
    told = record["task"].get("cannot_see")
    return [f"{record['task']['name']} cannot see {told}"] if told else []


def remarks(record: Mapping[str, Any]) -> list[str]:
    """The remarks on a record, which may be one of an earlier version; equal ones are to be shown once."""
    if record["algorithm"].get("z0") != "none":
        return []
    return [
        f"{record['algorithm']['name']} on {record['task']['name']}: all rows that are trained on share one "
        "prompt, none has a mismatched partner, and z0 is 0 throughout"
    ]
