"""votes: few votes per pair, so that some preferences look certain that are not.

Every prompt has two actions, of which the better is preferred with the same true probability, .8 by default;
its pair has `votes` independent votes, each a row. The fraction of unanimous pairs is p^n + (1−p)^n: 1 at one
vote, .68 at two, .33 at five, .11 at ten. The reference is uniform, and the reward is the Bradley–Terry
reward of the true preference.

What to expect: on a unanimous pair a loss without a finite optimum goes as far as training lets it, and to
the wrong action where the votes went wrong; a bounded margin or a regularised reward treats it like the
others. `frontier_gap` falls with n.

Source: after Azar et al. (2023), section 4.2 (empirical preferences of 0 and 1 under finite data).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, World, hookimpl, stream


@dataclass(frozen=True)
class Votes(Task):
    """Independent votes on the one pair of every prompt; drawn anew for each seed."""

    name: ClassVar[str] = "votes"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=500, lr=0.05)

    prompts: Annotated[int, Interval(ge=1, le=10000), Doc("prompts, with one pair of actions each")] = 64
    votes: Annotated[int, Interval(ge=1, le=1000), Doc("votes on every pair")] = 5
    preference: Annotated[
        float, Interval(gt=0.5, lt=1), Doc("true probability that the better action gets a vote")
    ] = 0.8

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """One row per vote; fewer votes are the first of more. `p_chosen` is the true probability."""
        p = self.preference
        names = [f"x{i}" for i in range(self.prompts)]
        drawn = [stream(seed, self.name, "data", i).random(self.votes) < p for i in range(self.prompts)]
        rows = tuple(
            Pair(x, "a", "b", p) if won else Pair(x, "b", "a", 1 - p)
            for vote in range(self.votes)
            for x, won in zip(names, (d[vote] for d in drawn), strict=True)
        )
        world = World(
            actions=dict.fromkeys(names, ("a", "b")),
            reference={x: {"a": 0.5, "b": 0.5} for x in names},
            reward={x: {"a": math.log(p / (1 - p)), "b": 0.0} for x in names},
        )
        return Dataset(train=rows, rows=len(rows), world=world)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Votes]
