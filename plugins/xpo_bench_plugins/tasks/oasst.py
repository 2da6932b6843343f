"""oasst: human-written replies to conversations of several turns, ranked by people.

754 pairs from rankings. Read as `oasst_en100_pairs` from the directory that `XPO_BENCH_DATA` names; bad rows
are left out and counted. Apache-2.0.

What to expect: one ranking gives several pairs, so rows are not independent; with random weights held-out
accuracy stays near one half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class Oasst(TextSet):
    """Human-written replies, ranked by people."""

    name: ClassVar[str] = "oasst"
    source: ClassVar[str] = "oasst_en100_pairs"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Oasst]
