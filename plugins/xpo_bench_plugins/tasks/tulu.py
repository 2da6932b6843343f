"""tulu: which of two assistants' answers experts graded higher.

996 pairs with `p_chosen` from five-level grades; equal grades (1/2) are not trained on and stay for
calibration. Read as `tulu_human_eval_pairs` from the directory that `XPO_BENCH_DATA` names; bad rows are left
out and counted. Apache-2.0.

What to expect: long answers; rows beyond the context lose the left end of their prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from xpo_bench import Budget, Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class Tulu(TextSet):
    """Expert grades of two assistants' answers."""

    name: ClassVar[str] = "tulu"
    source: ClassVar[str] = "tulu_human_eval_pairs"
    # answers are twice as long as other sets'
    budget: ClassVar[Budget] = replace(TextSet.budget, batch_size=4, kl_samples=2)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Tulu]
