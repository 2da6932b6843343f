"""deterministic: a total order over three actions in which every preference is certain.

One prompt, a ≻ b ≻ c, one row for each of the three pairs, p = 1, a uniform reference and no reward: a
Bradley–Terry reward that explains certain preferences is infinite. What to expect: the maximum of DPO's
objective puts all mass on `a` whatever β, so the hyperparameter does nothing; IPO's optimum stays near the
reference, the nearer the larger τ.

Source: Azar et al. (2023), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, World, hookimpl


@dataclass(frozen=True)
class Deterministic(Task):
    """Three certain preferences in a total order; the same rows for every seed."""

    name: ClassVar[str] = "deterministic"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=2000, lr=0.05)
    preferences: ClassVar[tuple[tuple[str, str], ...]] = (("a", "b"), ("b", "c"), ("a", "c"))
    """(chosen, rejected) of each row."""

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """One row per preference, nothing held out."""
        rows = tuple(Pair("x", chosen, rejected, p_chosen=1.0) for chosen, rejected in self.preferences)
        uniform = dict.fromkeys("abc", 1 / 3)
        return Dataset(
            train=rows, rows=len(rows), world=World(actions={"x": ("a", "b", "c")}, reference={"x": uniform})
        )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Deterministic]
