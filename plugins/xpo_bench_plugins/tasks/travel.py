"""travel: 210 travellers between Sydney, Canberra and Melbourne choosing among air, train, bus and car.

Real revealed preferences. Every traveller prefers the mode taken to each of the other three: three pairs. A
quarter of the travellers is held out, the same for every seed, so seeds differ for a tabular policy only
where batches are drawn. Users of the less popular modes were sampled more often, so fractions are the
sample's and not the market's.

For a tabular policy the prompts are income tercile x party size. Party size is alone or with others: three
classes would leave 9 to 18 travellers in the larger parties, two leave 24 to 49 in each of the six prompts.
`p_chosen` of a row is the fraction of the chosen mode among the travellers of the same prompt AND the same
split who took one of its two modes. It is below 1/2 where the traveller went with the minority, and absent
where the two modes tie, since 1/2 would mark a row without label. The held-out fractions use no training
traveller. All four modes are actions of every prompt and the reference is uniform; no true reward is known.

With `--model linear` each traveller is a prompt and what a mode would mean to them is its features:
generalised cost, terminal time, income where the mode is air, and a constant per mode but the car, the
specification of Greene's textbook example. What is learnt holds for travellers never seen, so held-out
accuracy means something. `sft` then is McFadden's conditional logit, and `dpo` at β = 1 a logit of the
differences.

On a language model each traveller is a prompt of its own, with income, party and every mode's waiting time,
travel time and cost as text; `p_chosen` is absent, for nobody chose twice.

What to expect: choices are far from certain, so a method that drives every observed preference to certainty
shows a large calibration error, on held-out travellers most of all.

Source: Greene and Hensher's travel-mode data, in `statsmodels.datasets.modechoice` (public domain).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Budget, Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet

MODES = ("air", "train", "bus", "car")
"""In the order of the data's codes 1 to 4."""
CLASSES = ("low", "middle", "high")
"""Terciles of household income."""


@dataclass(frozen=True)
class Trip:
    """One mode for one traveller: terminal and in-vehicle time in minutes, cost in dollars.

    `general` is the generalised cost: cost plus in-vehicle time valued in money.
    """

    wait: int
    time: int
    cost: int
    general: int


@dataclass(frozen=True)
class Traveller:
    """Household income in 1,000 dollars and its tercile, party size, every mode's trip, the chosen mode.

    `number` is the traveller's own in the data, from 1.
    """

    number: int
    income: int
    tercile: str
    party: int
    trips: Mapping[str, Trip]
    chosen: str

    @property
    def person(self) -> str:
        """Whose three pairs these are."""
        return f"traveller {self.number}"

    @property
    def cell(self) -> str:
        """The prompt for a tabular policy."""
        return f"income {self.tercile}, {'alone' if self.party == 1 else 'with others'}"

    @property
    def choice(self) -> Choice:
        """The mode taken, and the others."""
        return Choice(self.person, self.cell, self.text, features(self), self.chosen)

    @property
    def text(self) -> str:
        """The prompt on a language model."""
        company = "alone" if self.party == 1 else f"in a party of {self.party}"
        trips = (
            f"{mode}: wait {trip.wait} min, travel {trip.time} min, cost ${trip.cost}"
            for mode, trip in self.trips.items()
        )
        return (
            f"Household income ${self.income},000, travelling {company}.\n"
            + "\n".join(trips)
            + "\nChosen mode:"
        )


@dataclass(frozen=True)
class Travel(ChoiceSet):
    """Real travel-mode choices, offline; held-out travellers."""

    name: ClassVar[str] = "travel"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=2000, lr=0.05)
    source: ClassVar[str] = "statsmodels modechoice"
    order: ClassVar[tuple[str, ...]] = MODES
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
        "apo_down": 0.01,
        "apo_zero": 0.01,
        "aux_dpo": 0.01,
        "bco": 0.01,
        "bon": 0.01,
        "cdpo": 0.01,
        "chi_po": 0.01,
        "cpo": 0.01,
        "dpo": 0.01,
        "dpo_davidson": 0.01,
        "dpo_norm": 0.25,
        "dpo_rao_kupper": 0.01,
        "dpop": 0.01,
        "exo": 0.01,
        "ipo": 0.01,
        "kto": 0.01,
        "ld_dpo": 0.01,
        "nca": 0.01,
        "npo": 0.25,
        "online_dpo": 0.01,
        "orpo": 0.01,
        "ppo": 0.01,
        "r_dpo": 0.01,
        "robust": 0.01,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.01,
        "sdpo": 0.05,
        "sft": 0.01,
        "simper": 0.01,
        "simpo": 0.01,
        "slic": 0.002,
        "tpo": 0.01,
        "wpo": 0.01,
    }

    def choices(self) -> Sequence[Choice]:
        """The mode that every traveller took."""
        return [t.choice for t in travellers()]


def features(t: Traveller) -> dict[str, tuple[float, ...]]:
    """Features of every mode for a linear policy.

    Cost and terminal time / 100, income / 100 by air, a constant for air, train, bus.

    Source: Greene, Econometric Analysis, the travel-mode example of the chapter on discrete choice.
    """
    return {
        mode: (
            trip.general / 100,
            trip.wait / 100,
            t.income / 100 * (mode == "air"),
            *(float(mode == other) for other in MODES[:-1]),
        )
        for mode, trip in t.trips.items()
    }


def travellers() -> list[Traveller]:
    """All 210 travellers in the data's order."""
    import numpy as np
    from statsmodels.datasets import modechoice

    frame = modechoice.load_pandas().data.astype(int)
    people = [rows for _, rows in frame.groupby("individual", sort=False)]
    thirds = np.quantile([rows["hinc"].iloc[0] for rows in people], [1 / 3, 2 / 3])
    out = []
    for rows in people:
        records = rows.to_dict("records")
        income = records[0]["hinc"]
        out.append(
            Traveller(
                number=int(records[0]["individual"]),
                income=income,
                tercile=CLASSES[int(np.searchsorted(thirds, income))],
                party=records[0]["psize"],
                trips={MODES[r["mode"] - 1]: Trip(r["ttme"], r["invt"], r["invc"], r["gc"]) for r in records},
                chosen=next(MODES[r["mode"] - 1] for r in records if r["choice"]),
            )
        )
    return out


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Travel]
