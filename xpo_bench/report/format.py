"""Numbers and names as they are printed."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from xpo_bench.statistics import Estimate

ABSENT = "–"
AGREE = 1e-9
"""Half intervals below this share of the mean are rounding."""
LISTED = 40
"""Names that a sentence lists at most."""
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|\x9b[0-?]*[ -/]*[@-~]"
)


def clean(text: object) -> str:
    """A name from a record without escape sequences, control, invisible and direction-changing characters.

    Markup is not touched: tables take `rich.text.Text`, which does not read any.
    """
    plain = _ESCAPES.sub("", str(text))
    plain = "".join(" " if c in "\t\n\r" else c for c in plain)
    return "".join(c for c in plain if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")).strip()


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits in at most eight characters: 0.0123, 12.3, 1234, 2.1e6, 1.2e-7; – for None."""
    if value is None or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99999.5 or size < 1e-3:
        return _shorten(f"{value:.{min(digits, 2) - 1}e}")
    if size >= 10**digits - 0.5:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def narrow(value: float | None) -> str:
    """The same in at most seven characters, with two digits where three do not fit in six: 0.0123, 0.0098,
    -1e-17.
    """
    text = number(value)
    if len(text) <= 6 or value is None:
        return text
    text = number(value, 2)
    return text if len(text) <= 7 else _shorten(f"{value:.0e}")


def mean_pm(value: Estimate | None) -> str:
    """`0.71±0.03`; the mean alone from a single run, and where all runs agree to nine digits."""
    if value is None:
        return ABSENT
    if value.half is None or value.half <= AGREE * abs(value.mean):
        return number(value.mean)
    return f"{number(value.mean)}±{number(value.half, 2)}"


def si_pm(value: Estimate | None) -> str:
    """The same with an SI prefix in place of an exponent, the mean's for both: `3.1±0.2 T`, `42.5 G`."""
    if value is None or not math.isfinite(value.mean):
        return ABSENT
    size = abs(value.mean)
    power = min(max(0, math.floor(math.log10(size) / 3)), len(PREFIXES) - 1) if size else 0
    if size >= 999.5 * 1000.0**power and power < len(PREFIXES) - 1:
        power += 1  # three digits round it up
    scale = 1000.0**power
    half = None if value.half is None else value.half / scale
    return f"{mean_pm(Estimate(value.mean / scale, half, value.n))} {PREFIXES[power]}".rstrip()


def setting(value: object) -> str:
    """A value of a configuration: floats at six digits, everything else as it is written."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(values: Mapping[str, object]) -> str:
    """`beta=0.1, loss=sigmoid`; – of nothing."""
    return ", ".join(f"{name}={setting(value)}" for name, value in values.items()) or ABSENT


def counted(n: int, what: str) -> str:
    """`1 row`, `8,151 rows`."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`; of more than `LISTED` the first ones, and how many more there are."""
    if len(items) > LISTED:
        items = [*items[:LISTED], f"{len(items) - LISTED:,} more"]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def statuses(counts: Mapping[str, int]) -> str:
    """`3 ok, 1 diverged`: how many runs there are of each status, ok first."""
    order = sorted(counts, key=lambda status: (status != "ok", status))
    return ", ".join(f"{counts[status]} {clean(status)}" for status in order)


def _shorten(scientific: str) -> str:
    """1.2e+06 -> 1.2e6, 1e-07 -> 1e-7."""
    mantissa, exponent = scientific.split("e")
    return f"{mantissa}e{int(exponent)}"
