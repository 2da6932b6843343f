"""cycle: the intransitive twin of `deterministic`: a ≻ b, b ≻ c and c ≻ a, each certain.

No reward explains a cycle, and by symmetry none of the three actions is better. What to expect: both DPO and
IPO have their optimum at the uniform reference, so whatever moves a policy away from it is the optimizer or
the loss's other terms.

Source: the twin of the setting of Azar et al. (2023), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.tasks.deterministic import Deterministic


@dataclass(frozen=True)
class Cycle(Deterministic):
    """Three certain preferences in a cycle."""

    name: ClassVar[str] = "cycle"
    preferences: ClassVar[tuple[tuple[str, str], ...]] = (("a", "b"), ("b", "c"), ("c", "a"))


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Cycle]
