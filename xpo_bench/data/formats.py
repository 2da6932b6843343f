"""Preference rows by TRL's column names: paired and unpaired, checked one by one.

Paired rows have `prompt, chosen, rejected`; unpaired rows `prompt, completion, label`. Optional columns: `p_chosen`
in [0.5, 1], or votes (`votes_chosen`, `votes_rejected`, `votes_tie`; a tie is half a vote for each), `split`, and
`source` or `topic`, the unit that a row was drawn from. `score_chosen` and `score_rejected` are allowed and not
read: a score difference is no probability. Other columns are ignored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from xpo_bench.errors import DataError
from xpo_bench.types import Example, Pair, Single

Row = Mapping[str, Any]
Split = Literal["train", "heldout"]

PAIRED = ("prompt", "chosen", "rejected")
UNPAIRED = ("prompt", "completion", "label")
VOTES = ("votes_chosen", "votes_rejected", "votes_tie")
COLUMNS = frozenset({*PAIRED, *UNPAIRED, *VOTES, "p_chosen", "split", "source", "topic"})
"""Every column that is read."""
NUMBERS = frozenset({*VOTES, "p_chosen"})
HELDOUT_SPLITS = frozenset({"test", "validation", "valid", "val", "heldout", "held_out", "dev", "eval"})
"""Values of the `split` column, besides `train`, that mean held out."""
NAMED = 5
"""Bad rows that are named; the rest is counted."""


class BadRow(Exception):
    """One row that cannot be used: a reason to count, and a sentence with what would be right."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Bad(NamedTuple):
    """A bad row as it is told of: its number, the reason that it counts under, and a sentence."""

    row: int
    reason: str
    message: str


class LeftOut(BadRow):
    """One row that says nothing, and is left out and counted, however strict reading is."""


@dataclass(frozen=True)
class Parsed:
    """The good rows of a data set.

    Args:
        examples: all `Pair` or all `Single`, in file order.
        splits: the split of each example; None where the row has no `split`.
        kind: which of the two layouts it is. rows: rows read. dropped: reason -> rows left out.
        numbers: the row number of each example. bad: the first rows that were left out.
    """

    examples: tuple[Example, ...]
    splits: tuple[Split | None, ...]
    kind: Literal["pairs", "singles"]
    rows: int
    dropped: Mapping[str, int]
    numbers: tuple[int, ...] = ()
    bad: tuple[Bad, ...] = ()


def parse(
    rows: Sequence[tuple[int, Row]],
    where: str,
    on_bad_row: Literal["error", "skip"] = "error",
    render: Callable[[Row], Row] = lambda row: row,
) -> Parsed:
    """Turn raw rows into examples.

    Args:
        rows: (row number, columns) in order. where: the file or set, for messages.
        on_bad_row: refuse the set at the first bad row, or leave bad rows out and count them by reason.
        render: turns conversational columns of a row into text; a `BadRow` that it raises counts as the row's.

    Raises:
        DataError: a bad row, with its number, the reason and what would be right; or no good row at all.
    """
    if not rows:
        raise DataError(f"{where}: empty data set; at least one row is needed")
    kind = next((k for _, row in rows if (k := _kind(row)) is not None), None)
    examples: list[Example] = []
    splits: list[Split | None] = []
    numbers: list[int] = []
    dropped: Counter[str] = Counter()
    named: list[Bad] = []
    for number, row in rows:
        try:
            if kind is None:
                raise BadRow("missing column", f"columns {_names(row)} hold neither {_both_layouts()}")
            text = render(row)
            example = _pair(text) if kind == "pairs" else _single(text)
            split = _split(row)
        except BadRow as bad:
            if on_bad_row == "error" and not isinstance(bad, LeftOut):
                raise DataError(f"{where} row {number}: {bad} (--on-bad-row skip leaves bad rows out)") from None
            if len(named) < NAMED:
                named.append(Bad(number, bad.reason, str(bad)))
            dropped[bad.reason] += 1
            continue
        examples.append(example)
        splits.append(split)
        numbers.append(number)
    if not examples or kind is None:
        first = named[0]
        raise DataError(f"{where}: no usable row among {len(rows)}; the first: {where} row {first.row}: {first.message}")
    return Parsed(
        tuple(examples),
        tuple(splits),
        kind,
        len(rows),
        dict(sorted(dropped.items())),
        tuple(numbers),
        tuple(named),
    )


def to_singles(examples: Iterable[Example]) -> list[Single]:
    """Unpaired rows: a pair becomes chosen (desirable) and rejected (undesirable), adjacent and in this order."""
    out: list[Single] = []
    for e in examples:
        if isinstance(e, Pair):
            out += [Single(e.prompt, e.chosen, True, e.source), Single(e.prompt, e.rejected, False, e.source)]
        else:
            out.append(e)
    return out


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for error messages."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def finite(value: object) -> float | None:
    """The value as a float when it is a finite number, else None; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of a float
        return None


# --------------------------------------------------------------------------- one row


def _kind(row: Row) -> Literal["pairs", "singles"] | None:
    if "chosen" in row or "rejected" in row:
        return "pairs"
    return "singles" if "completion" in row else None


def _pair(row: Row) -> Pair:
    _require(row, PAIRED)
    prompt, chosen, rejected = (_text(row, column) for column in PAIRED)
    if chosen == rejected:
        raise BadRow("chosen equals rejected", f"chosen == rejected ({shown(chosen)}); a pair needs two different completions")
    return Pair(prompt, chosen, rejected, _p_chosen(row), _source(row))


def _single(row: Row) -> Single:
    _require(row, UNPAIRED)
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    label = row["label"]
    if not isinstance(label, bool):
        raise BadRow("label not boolean", f"label is {shown(label)}; want true (desirable) or false")
    return Single(prompt, completion, label, _source(row))


def _require(row: Row, columns: Sequence[str]) -> None:
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        raise BadRow("missing column", f"missing {word} {', '.join(missing)} (has {_names(row)}); want {', '.join(columns)}")


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise BadRow("not text", f"{column} is not text but {type(value).__name__} {shown(value)}; give a string")
    if not value.strip():
        what = "empty prompt" if column == "prompt" else "empty completion"
        raise BadRow(what, f"empty {column}; give a string with at least one visible character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("not text", f"{column} is not text: it holds half a surrogate pair; give valid Unicode") from None
    return value


def _p_chosen(row: Row) -> float | None:
    given = row.get("p_chosen")
    if given is not None:
        p, origin = _number(given, "p_chosen"), f"p_chosen is {shown(given)}"
    elif row.get("votes_chosen") is not None and row.get("votes_rejected") is not None:
        chosen, rejected, tie = (_number(row.get(column) or 0, column) for column in VOTES)
        if min(chosen, rejected, tie) < 0 or chosen + rejected + tie == 0:
            raise BadRow("p_chosen out of range", f"votes are {chosen:g}, {rejected:g}, {tie:g}; want one or more, none negative")
        p = (chosen + tie / 2) / (chosen + rejected + tie)
        origin = f"the votes give p_chosen = {p:g}"
    else:
        return None
    if not 0.5 <= p <= 1:
        raise BadRow("p_chosen out of range", f"{origin}; want 0.5 to 1 (swap chosen and rejected below 0.5)")
    return p


def _number(value: object, column: str) -> float:
    number = finite(value)
    if number is None:
        raise BadRow("p_chosen out of range", f"{column} is {shown(value)}; want a finite number")
    return number


def _source(row: Row) -> str | None:
    value = row.get("source") if row.get("source") is not None else row.get("topic")
    return None if value is None else str(value)


def _split(row: Row) -> Split | None:
    value = row.get("split")
    if value is None:
        return None
    name = value.lower() if isinstance(value, str) else ""
    if name == "train":
        return "train"
    if name in HELDOUT_SPLITS:
        return "heldout"
    raise BadRow("unknown split", f"split is {shown(value)}; want train, or one of {', '.join(sorted(HELDOUT_SPLITS))}")


def _names(row: Row) -> str:
    shown_names = [name if name.isprintable() else ascii(name) for name in map(str, row)]
    return ", ".join(shown_names[:12]) + (", ..." if len(shown_names) > 12 else "") if shown_names else "none"


def _both_layouts() -> str:
    return f"{', '.join(PAIRED)} nor {', '.join(UNPAIRED)}"
