"""imbalance: unpaired labels of which few are desirable, in a world whose reward is known.

A Bradley–Terry world of eight prompts with six actions each and a reference that is not uniform. Pairs are
drawn and labelled as in `bandit`; of every pair the loser is an undesirable example, and the winner a
desirable one for one pair in `ratio` alone. The number of labels stays the same whatever the ratio, 1:1 to
1:10, and so does the world, so that what changes is the mixture.

What to expect: losses on unpaired examples (`kto`, and others that accept them; those on pairs do not fit).
With ten times as many undesirable examples the gradient of KTO at equal weights is mostly "away from this",
which lowers what is named and raises whatever is not: its `attained_1` falls from .93 at 1:1 to .41 at 1:10.
Weights that balance the two sides, `--set kto.desirable_weight=10`, are the paper's remedy.

Source: this suite; after Ethayarajh et al. (2024), arXiv 2402.01306 (imbalanced desirable and undesirable
data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval
from typing_extensions import Doc

from xpo_bench import ONE_TOKEN, Budget, DataError, Dataset, ModelSpec, Pair, Single, Task, hookimpl, stream
from xpo_bench.data.synthetic import bradley_terry_world, sample_pairs


@dataclass(frozen=True)
class Imbalance(Task):
    """Exact world; unpaired labels in a stated ratio, drawn anew for each seed."""

    name: ClassVar[str] = "imbalance"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = f"{ONE_TOKEN}; losses of pairs: its rows are unpaired"
    budget: ClassVar[Budget] = Budget(steps=1000, batch_size=256, lr=0.01)

    prompts: Annotated[int, Interval(ge=1, le=1000), Doc("prompts of the world")] = 8
    actions: Annotated[int, Interval(ge=2, le=1000), Doc("actions of every prompt")] = 6
    labels: Annotated[int, Ge(2), Doc("labelled examples, desirable and undesirable together")] = 1100
    ratio: Annotated[float, Interval(ge=1, le=10), Doc("undesirable examples for every desirable one")] = 10.0

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and labels drawn at this seed, in a random order.

        Raises:
            xpo_bench.errors.DataError: too few labels for a desirable one, or to contain every action.
        """
        world = bradley_terry_world(self.name, self.version, self.prompts, self.actions)
        rng = stream(seed, self.name, "data")
        desirable = round(self.labels / (1 + self.ratio))
        if not desirable:
            raise DataError(
                f"{self.labels} labels at 1:{self.ratio:g} have no desirable one; want at least "
                f"{round(1 + self.ratio)}"
            )
        pairs: tuple[Pair, ...] = sample_pairs(world, world.actions, self.labels - desirable, rng)
        rows = [Single(e.prompt, e.rejected, desirable=False) for e in pairs]
        rows += [Single(e.prompt, e.chosen, desirable=True) for e in pairs[:desirable]]
        order = rng.permutation(len(rows)).tolist()
        return Dataset(train=tuple(rows[i] for i in order), rows=len(rows), kind="singles", world=world)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Imbalance]
