"""pandalm: which of two answers to an instruction three raters preferred.

999 pairs with votes, `p_chosen` their fraction; ties (1/2) are not trained on and stay for calibration. Read
as `pandalm` from the directory that `XPO_BENCH_DATA` names; bad rows are left out and counted. Apache-2.0.

What to expect: short answers, so little is truncated; with random weights held-out accuracy stays near one
half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class PandaLM(TextSet):
    """Instruction answers compared by three raters."""

    name: ClassVar[str] = "pandalm"
    source: ClassVar[str] = "pandalm"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [PandaLM]
