"""tulu_unpaired: assistants' answers that experts judged acceptable or not, one by one.

2,300 native unpaired labels, for algorithms on unpaired examples (kto, npo); the others are refused. Read as
`tulu_human_eval_unpaired` from the directory that `XPO_BENCH_DATA` names; bad rows are left out and counted.
Apache-2.0.

What to expect: no preference accuracy; compare log-probabilities of desirable and undesirable answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class TuluUnpaired(TextSet):
    """Answers judged acceptable or not, unpaired."""

    name: ClassVar[str] = "tulu_unpaired"
    source: ClassVar[str] = "tulu_human_eval_unpaired"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [TuluUnpaired]
