"""sound: 21,924 comparisons of eight ways to reproduce recorded sound, by 40 listeners.

Every listener compared all 28 pairs of Mono, PhantomMono, Stereo, WideStereo, Matrix, Upmix1, Upmix2 and
Original, some twenty times, with four pieces of music. A quarter of the listeners is held out whole. No
package of the index has the data: a few lines of R write `sound.csv`, and docs/data.md has them.

For a tabular policy the prompts are the pieces of music and the actions the eight ways: `dpo` at β = 1 is a
Bradley–Terry model of each piece. With `--model linear` there is one number per way, Mono being 0, for all
music together: one Bradley–Terry model.

What to expect: 195 comparisons of every pair with every piece, with fractions between .03 and .74, so that
methods differ in calibration and hardly in accuracy; ten held-out listeners are what intervals rest on.

Source: Choisel and Wickelmaier (2007), Evaluation of multichannel reproduced sound: scaling auditory
attributes underlying listener preference, Journal of the Acoustical Society of America 121; data
`SoundQuality` of R's psychotools (GPL-2 | GPL-3), whose `btmodel` reaches the same coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import DataError, Task, hookimpl
from xpo_bench.data.sources import find
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet

WAYS = ("Mono", "PhantomMono", "Stereo", "WideStereo", "Matrix", "Upmix1", "Upmix2", "Original")
"""Ways to reproduce sound, as the data list them."""
COLUMNS = ("person", "music", "first", "second", "preferred")
SIDES = ("first", "second")


@dataclass(frozen=True)
class Sound(ChoiceSet):
    """Real comparisons of reproduced sound; held-out listeners; exported from R."""

    name: ClassVar[str] = "sound"
    version: ClassVar[str] = "1"
    source: ClassVar[str] = "psychotools SoundQuality"
    order: ClassVar[tuple[str, ...]] = WAYS

    def choices(self) -> Sequence[Choice]:
        """Every comparison, in the order of the file."""
        import pandas as pd

        path = find(self.name)
        if path is None or path.suffix != ".csv":
            raise DataError(
                "sound: no sound.csv to read under XPO_BENCH_DATA; the lines of R in docs/data.md write it"
            )
        try:
            table = pd.read_csv(path, dtype=str)[list(COLUMNS)]
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:80]
            raise DataError(f"{path}: cannot be read ({reason}); want columns {', '.join(COLUMNS)}") from None
        rows = enumerate(table.itertuples(index=False, name=None), 1)
        return [choice(f"{path} row {number}", *map(str, row)) for number, row in rows]


def choice(where: str, person: str, music: str, first: str, second: str, preferred: str) -> Choice:
    """One comparison.

    Raises:
        DataError: a way that is not known, one compared with itself, or no preference.
    """
    if not {first, second} <= set(WAYS) or first == second or preferred not in SIDES:
        raise DataError(
            f"{where}: {first!r} against {second!r}, preferred {preferred!r}; want two of {', '.join(WAYS)}, "
            "and first or second"
        )
    return Choice(
        person=f"listener {person}",
        cell=f"music {music}",
        text=f"Music: {music}. Reproduced as {first} or {second}?\nPreferred:",
        features={way: tuple(float(way == other) for other in WAYS[1:]) for way in (first, second)},
        chosen=first if preferred == "first" else second,
    )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Sound]
