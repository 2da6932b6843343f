"""hh: the more helpful or harmless of two assistants' replies, as crowd workers saw it.

The hub set `Anthropic/hh-rlhf`. Its rows are two transcripts with turns marked Human and Assistant; the
prompt ends after the last Assistant mark up to which the two agree. Rows without a common prompt, and other
bad rows, are left out and counted. MIT.

What to expect: noisy labels, with held-out accuracies of 60 to 70 % at best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class HH(TextSet):
    """Transcripts with crowd preferences."""

    name: ClassVar[str] = "hh"
    source: ClassVar[str] = "Anthropic/hh-rlhf"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [HH]
