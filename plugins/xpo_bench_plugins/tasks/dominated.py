"""dominated: `deterministic` with an action that never wins: a and b beat each other, and a beats c.

One prompt and a uniform reference; the rows are a ≻ b, b ≻ a, a ≻ c. What to expect: DPO has no finite
optimum, since nothing contradicts the last row, and excludes c whatever β; IPO's optimum is π ∝ (m, m, 1)
with m = exp(1/(2τ)), so c keeps a probability that τ decides.

Source: after Azar et al. (2023), section 5 (actions that never win).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from xpo_bench import Dataset, ModelSpec, Pair, Task, hookimpl
from xpo_bench_plugins.tasks.deterministic import Deterministic


@dataclass(frozen=True)
class Dominated(Deterministic):
    """Two actions that tie, and one that never wins."""

    name: ClassVar[str] = "dominated"
    preferences: ClassVar[tuple[tuple[str, str], ...]] = (("a", "b"), ("b", "a"), ("a", "c"))

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """One row per preference; rows of the tie have no certain side and no probability."""
        found = super().data(seed, model)
        rows = [
            replace(e, p_chosen=None) if isinstance(e, Pair) and "c" not in (e.chosen, e.rejected) else e
            for e in found.train
        ]
        return replace(found, train=tuple(rows))


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Dominated]
