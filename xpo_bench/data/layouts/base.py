"""What a layout is, and the pieces that layouts are made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xpo_bench.data.cells import structure
from xpo_bench.data.formats import BadRow, Row, numeric, shown
from xpo_bench.data.strengths import Link
from xpo_bench.data.values import TIES
from xpo_bench.errors import DataError

Side = Literal["first", "second", "tie"]
Numbered = Sequence[tuple[int, Row | BadRow]]


@dataclass
class Context:
    """What a layout may ask for, and where it counts what the reader of a run should know.

    Args:
        rankings: make all pairs of a ranking, or the best answer against each of the others.
        link: what makes probabilities of strengths; None leaves that to the layout. linked: the column of
            strengths that it was used on, where it was.
    """

    rankings: Literal["all", "best"] = "all"
    link: Link | None = None
    linked: str = ""
    notes: Counter[str] = field(default_factory=Counter)


Rows = Callable[[Row, Context], Iterable[Row]]
"""One raw row to any number of rows in TRL's columns."""


def _any_shape(_: Row) -> bool:
    return True


@dataclass(frozen=True)
class Layout:
    """One way in which public sets spell preferences.

    Args:
        name: as the record and the documentation call it.
        columns: what is read from where, for the record.
        needs: columns without which it is another layout. also: columns that are read where they are there.
        rows: one raw row to any number of rows in TRL's columns; a `BadRow` that it raises counts as the
            row's.
        fits: whether the values of a first row have the layout's shape.
        beside: it is also looked for where TRL's own columns are complete.
        gather: for layouts whose pairs come from several rows: all rows to rows of pairs, in place of `rows`.
    """

    name: str
    columns: Mapping[str, str]
    needs: frozenset[str]
    also: frozenset[str] = frozenset()
    rows: Rows = lambda row, _: [row]
    fits: Callable[[Row], bool] = _any_shape
    beside: bool = False
    gather: Callable[[Numbered, Context], Numbered] | None = None

    @property
    def shaped(self) -> bool:
        """Whether more than the names of columns tells the layout."""
        return self.fits is not _any_shape


def words(text: str) -> frozenset[str]:
    """Column names, separated by blanks."""
    return frozenset(text.split())


# --------------------------------------------------------------------------- values


def number(row: Row, column: str, reason: str = "unreadable preference") -> float:
    """A finite number, also one that is spelled as text.

    Raises:
        BadRow: it is none.
    """
    value = row.get(column)
    found = numeric(value)
    if found is None:
        raise BadRow(reason, f"{column} is {shown(value)}; want a number")
    return found


def one_of(row: Row, column: str, meanings: Mapping[float, Side]) -> Side:
    """What a number in a column means.

    Raises:
        BadRow: another number.
    """
    value = number(row, column)
    if value not in meanings:
        raise BadRow(
            "unreadable preference",
            f"{column} is {shown(row.get(column))}; want {' or '.join(f'{m:g}' for m in meanings)}",
        )
    return meanings[value]


_SIGNS = re.compile(r"[<>=!~+-]")
"""Characters that compare or negate: a verdict with one of them is not read by its words."""
_NAMED = ("model", "response", "assistant", "conversation", "completion", "answer", "output")
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("a", "first", *(f"{name} a" for name in _NAMED)), "first"),
    **dict.fromkeys(("b", "second", *(f"{name} b" for name in _NAMED)), "second"),
    **dict.fromkeys(TIES, "tie"),
}
"""Verdicts in lower case, one blank for whatever is no letter."""


def winner(row: Row, column: str) -> Side:
    """The side that a verdict names: `A`, `model_a`, `Model B`, `tie (bothbad)`, `both_bad`, in any case.

    Raises:
        BadRow: something else; a bare number is refused, since 1 is the first side in some sets and the
        second in others.
    """
    value = row.get(column)
    text = (
        " ".join(re.findall(r"[^\W_]+", value.lower()))
        if isinstance(value, str) and not _SIGNS.search(value)
        else ""
    )
    side = _SIDES.get(text) or ("tie" if text.startswith("tie ") else None)
    if side is None:
        want = "want a, b or tie (also model_a, response_a, tie (bothbad))"
        if numeric(value) is not None:
            want += (
                "; which side a number means differs from set to set: "
                "see pku-saferlhf (0 is the first) and shp "
                "(1 is the first) in docs/data.md"
            )
        raise BadRow("unreadable preference", f"{column} is {shown(value)}; {want}")
    return side


def listed(row: Row, column: str) -> list[Any]:
    """A list, also one that a cell spells.

    Raises:
        BadRow: it is none.
    """
    value = structure(row.get(column))
    if not isinstance(value, list):
        raise BadRow("missing column", f"{column} is {shown(row.get(column))}; want a list")
    return value


def inside(value: object, *path: str) -> Any:
    """A field within nested objects; None where there is none."""
    for name in path:
        value = structure(value)
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_list(value: object) -> bool:
    return isinstance(structure(value), list)


def said(text: object, role: str = "assistant") -> Any:
    """Text as one message; what is no text as it is."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


# --------------------------------------------------------------------------- pairs


def preferred(prompt: object, first: object, second: object, side: Side) -> dict[str, object]:
    """The pair of a verdict; a tie keeps the order and has p_chosen 1/2."""
    chosen, rejected = (second, first) if side == "second" else (first, second)
    row: dict[str, object] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {**row, "p_chosen": 0.5} if side == "tie" else row


def graded(
    prompt: object, first: object, second: object, row: Row, column: str, context: Context
) -> dict[str, object]:
    """The pair of a strength s from −3 (the first is much better) to 3.

    p_chosen is σ(K·|s|) where a link is given, else 1/2 + |s|/6.

    Raises:
        BadRow: no number from −3 to 3.
        DataError: a link about another middle than 0.
    """
    s = number(row, column)
    if not -3 <= s <= 3:
        want = "want -3 (first much better) to 3 (second much better)"
        raise BadRow("unreadable preference", f"{column} is {shown(row.get(column))}; {want}")
    # s = 0 gives 3/6 = 1/2, a tie; |s| = 3 gives 1, a certain preference
    p = (3 + abs(s)) / 6
    if context.link is not None:
        if context.link.centre:
            raise DataError(f"--strength: a {column} of 0 is a tie; leave centre out")
        context.linked = f"|{column}|"
        p = context.link(abs(s))
    return {**preferred(prompt, first, second, "second" if s > 0 else "first"), "p_chosen": p}


def compared(
    prompt: object, answers: Sequence[tuple[object, float]], context: Context
) -> list[dict[str, Any]]:
    """Pairs of graded answers to one prompt, higher being better; equal grades are ties.

    Answers of equal text make no pair, which is counted.
    """
    # stable: answers of one grade keep the order of the set, and a tie puts the earlier one first
    order = sorted(range(len(answers)), key=lambda i: -answers[i][1])
    out = []
    for place, i in enumerate(order[:1] if context.rankings == "best" else order):
        for j in order[place + 1 :]:
            (better, high), (worse, low) = answers[i], answers[j]
            if better == worse:
                context.notes["equal answers in a ranking"] += 1
                continue
            out.append(preferred(prompt, better, worse, "tie" if high == low else "first"))
    return out
