"""one_pair: a single certain preference between two actions: the smallest world there is.

Everything about it is known in closed form. With h the difference of the two log-ratios and η the rate of
plain gradient descent, IPO's curve is h_t = (1/2τ)(1 − (1 − 4η)^t): monotone below η = 1/4, oscillating up
to 1/2, divergent above, so a divergence of `ipo` is a finding and no fault. DPO's h grows as ln t without
end. A reward fitted with weight decay λ has the finite margin d with σ(−d) = λd/2, and RLHF's h is d/β;
without weight decay it has none.

Source: Azar et al. (2023), section 4.2 and eq. 17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, World, hookimpl


@dataclass(frozen=True)
class OnePair(Task):
    """One row, a ≻ b; the same for every seed."""

    name: ClassVar[str] = "one_pair"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=2000, lr=0.05)
    expects_divergence: ClassVar[frozenset[str]] = frozenset({"ipo"})

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The one preference, nothing held out."""
        world = World(actions={"x": ("a", "b")}, reference={"x": {"a": 0.5, "b": 0.5}})
        return Dataset(train=(Pair("x", "a", "b", p_chosen=1.0),), rows=1, world=world)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [OnePair]
