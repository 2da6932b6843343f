"""The task `tea`: which of two drinks is chosen at a time of the day, from a csv file in the package."""

import csv
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, ClassVar

from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, hookimpl


@dataclass(frozen=True)
class Tea(Task):
    """Invented choices between drinks at three times of the day, counted per pair."""

    name: ClassVar[str] = "tea"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=500, lr=0.05)

    least: Annotated[int, Ge(1), Doc("pairs that were asked less often are left out")] = 1

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        with resources.files(__name__).joinpath("choices.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        pairs = [_pair(row) for row in rows if int(row["asked"]) >= self.least]
        left_out = len(rows) - len(pairs)
        return Dataset(
            train=tuple(pairs),
            source="choices.csv",
            rows=len(rows),
            dropped={"asked too seldom": left_out} if left_out else {},
        )


def _pair(row: dict[str, str]) -> Pair:
    """The majority's choice, with its fraction of the votes."""
    share = int(row["first_chosen"]) / int(row["asked"])
    chosen, rejected = (row["first"], row["second"]) if share >= 0.5 else (row["second"], row["first"])
    return Pair(row["prompt"], chosen, rejected, p_chosen=max(share, 1 - share))


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Tea]
