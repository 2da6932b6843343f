"""general: a preference that no reward explains: an asymmetric cycle.

One prompt, three actions and a uniform reference; a ≻ b with probability .9, b ≻ c with .8 and c ≻ a with .7,
each in ten rows, nine, eight and seven of them in its favour: the rows ARE the preference, the same for every
seed. The true preference is the world's (`World.preference`), there is no reward, and
`fit_ranker(pairs, 0.0)` finds it again from the rows.

What to expect: the Nash policy is (.3333, .2222, .4444), and `exploitability` is 0 there alone. The best
reward in Bradley and Terry's sense ranks `a` first, which wins most often (the Borda winner, .6 against .45
and .45), so that losses that stand for a reward go there: DPO's optimum at β = .1 gives it .966 and is
exploitable by .18, more than the uniform reference (.07), which it left. IPO's optimum is the same in order,
h = (4, −2, −2)/60/τ over the reference, .576 for `a` at τ = .1; a smaller τ moves it there. Self-play on
the preference itself moves towards the Nash policy.

In the symmetric `cycle` all of these are the uniform policy; see `ab`, `bc` and `ca` to turn one into the
other.

Source: this suite; after Munos et al. (2023) for the game, Azar et al. (2023) for preferences without a
reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, DataError, Dataset, ModelSpec, Pair, Task, World, hookimpl

ROWS = 100
"""Most rows of two actions that are tried in order to state a win rate exactly."""


@dataclass(frozen=True)
class General(Task):
    """Three actions in a cycle of uneven win rates; the rows are the whole preference."""

    name: ClassVar[str] = "general"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; finite data: the rows are the preference itself"
    budget: ClassVar[Budget] = Budget(steps=1000, lr=0.01)

    ab: Annotated[float, Interval(ge=0, le=1), Doc("probability that a is preferred to b")] = 0.9
    bc: Annotated[float, Interval(ge=0, le=1), Doc("probability that b is preferred to c")] = 0.8
    ca: Annotated[float, Interval(ge=0, le=1), Doc("probability that c is preferred to a")] = 0.7

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """As many rows of every two actions as state all three win rates exactly.

        Raises:
            xpo_bench.errors.DataError: none up to 100 do.
        """
        rates = {("a", "b"): self.ab, ("b", "c"): self.bc, ("c", "a"): self.ca}
        each = next((n for n in range(10, ROWS + 1) if all(_whole(n * p) for p in rates.values())), None)
        if each is None:
            raise DataError(
                f"task general: win rates {self.ab:g}, {self.bc:g} and {self.ca:g} are no fractions of up to "
                f"{ROWS} rows; want two decimals at most"
            )
        rows: list[Pair] = []
        for (x, y), p in rates.items():
            wins = round(each * p)
            rows += [Pair("x", x, y, p)] * wins + [Pair("x", y, x, 1 - p)] * (each - wins)
        world = World(
            actions={"x": ("a", "b", "c")},
            reference={"x": dict.fromkeys("abc", 1 / 3)},
            preference={"x": rates},
        )
        return Dataset(train=tuple(rows), rows=len(rows), world=world)


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [General]
