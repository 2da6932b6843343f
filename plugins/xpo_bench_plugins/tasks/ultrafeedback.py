"""ultrafeedback: the better graded of two models' answers, with a language model as the judge.

Conversational rows of the hub set `trl-lib/ultrafeedback_binarized`, rendered with the policy's chat
template; the prompt is the part that the two conversations have in common. Bad rows are left out and counted.
MIT.

What to expect: a large set, of which the default 200 steps see a small part; scores are not read as
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class UltraFeedback(TextSet):
    """Answers to instructions, graded by a language model."""

    name: ClassVar[str] = "ultrafeedback"
    source: ClassVar[str] = "trl-lib/ultrafeedback_binarized"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [UltraFeedback]
