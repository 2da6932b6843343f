"""Preference rows by TRL's column names: paired and unpaired, checked one by one.

Paired rows have `prompt, chosen, rejected`; unpaired rows `prompt, completion, label`. Optional columns:
`p_chosen` in [0.5, 1], or votes (`votes_chosen`, `votes_rejected`, `votes_tie`; a tie is half a vote for
each), `label` or `winner` where they say that a pair is a tie, `split`, `source` or `topic`, the unit that a
row was drawn from, and `cluster`, `person` or `annotator`, whose preference it is.
A difference of `score_chosen` and `score_rejected` is no probability: pairs whose chosen side does not have
the higher score are counted, no more. Other columns are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from xpo_bench.contract.examples import Example, Pair, Single
from xpo_bench.data.strengths import COLUMN
from xpo_bench.data.values import (
    VERDICTS,
    VOTES,
    BadRow,
    Row,
    absent,
    finite,
    label_of,
    numeric,
    preference_of,
    shown,
)
from xpo_bench.errors import DataError

__all__ = ["Bad", "BadRow", "LeftOut", "Parsed", "Row", "finite", "numeric", "parse", "shown", "to_singles"]

Split = Literal["train", "heldout"]

PAIRED = ("prompt", "chosen", "rejected")
UNPAIRED = ("prompt", "completion", "label")
PERSONS = ("cluster", "person", "annotator")
"""Columns of whose preference a row is, the first of them that is there."""
COLUMNS = frozenset({
    *PAIRED, *UNPAIRED, *VOTES, "p_chosen", "split", "source", "topic", *PERSONS, COLUMN, *VERDICTS,
})  # fmt: skip
"""Every column that decides what an example is."""
PASSED = (
    "tools", "chat_template_kwargs", "system", "images", "image", "videos", "video", "documents",
    "audio", "audios",
)  # fmt: skip
"""Columns that may change a prompt: handed on as they are, to be rendered or refused by name."""
SCORES = {
    "score_chosen": ("chosen_score", "chosen_rating", "chosen-rating", "chosen_avg_rating", "rating_chosen"),
    "score_rejected": (
        "rejected_score",
        "rejected_rating",
        "rejected-rating",
        "rejected_avg_rating",
        "rating_rejected",
    ),
}
"""Scores of the two sides, and their other names in public sets."""
SCORE_NAMES = frozenset({*SCORES, *(name for names in SCORES.values() for name in names)})
HELDOUT_SPLITS = frozenset({"test", "validation", "valid", "val", "heldout", "held_out", "dev", "eval"})
"""Values of the `split` column, besides `train`, that mean held out."""
SPLIT_SUFFIX = "_prefs"
"""`train_prefs` and `test_prefs` are train and test of sets that hold other kinds of rows beside
preferences."""
NAMED = 5
"""Bad rows that an error names; the rest is counted."""
SCORED_LOWER = "score_chosen <= score_rejected"
UNREAD = "p_chosen or votes not read: they are of pairs, and unpaired rows have a label"


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
        notes: what is odd about rows that are used -> their number.
        numbers: the row number of each example. bad: the first rows that were left out.
    """

    examples: tuple[Example, ...]
    splits: tuple[Split | None, ...]
    kind: Literal["pairs", "singles"]
    rows: int
    dropped: Mapping[str, int]
    numbers: tuple[int, ...] = ()
    bad: tuple[Bad, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def parse(
    rows: Sequence[tuple[int, Row | BadRow]],
    where: str,
    on_bad_row: Literal["error", "skip"] = "error",
    render: Callable[[Row], Row] = lambda row: row,
    advice: Callable[[Row], str] = lambda row: "",
) -> Parsed:
    """Turn raw rows into examples.

    Args:
        rows: (row number, columns, or what is wrong with the row) in order.
        where: the file or set, for messages.
        on_bad_row: refuse the set for its bad rows, or leave them out and count them by reason.
        render: turns conversational columns of a row into text; a `BadRow` that it raises counts as the
            row's.
        advice: what may help with a row that lacks columns.

    Raises:
        DataError: bad rows, the first five with their number, the reason and what would be right, and how
        many
            there are for each reason; or no good row at all.
    """
    if not rows:
        raise DataError(f"{where}: empty data set; at least one row is needed")
    kind = next((k for _, row in rows if not isinstance(row, BadRow) and (k := _kind(row)) is not None), None)
    examples: list[Example] = []
    splits: list[Split | None] = []
    numbers: list[int] = []
    dropped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    named: list[Bad] = []
    refused: list[tuple[int, str]] = []
    advised = ""
    wrong: Counter[str] = Counter()
    for number, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            if kind is None:
                raise BadRow("missing column", f"columns {_names(row)} hold neither {_both_layouts()}")
            text = render(row)
            example = _pair(text) if kind == "pairs" else _single(text)
            split = _split(row)
        except BadRow as bad:
            hint = (
                advice(row)
                if bad.reason == "missing column" and not isinstance(row, BadRow) and not named
                else ""
            )
            advised = advised or hint
            message = f"{bad}; {hint}" if hint else str(bad)
            if len(named) < NAMED:
                named.append(Bad(number, bad.reason, message))
            if not isinstance(bad, LeftOut):
                wrong[bad.reason] += 1
                if len(refused) < NAMED:
                    refused.append((number, str(bad)))
            dropped[bad.reason] += 1
            if kind is None and on_bad_row == "error" and not isinstance(row, BadRow):
                break  # they all say the same
            continue
        examples.append(example)
        splits.append(split)
        numbers.append(number)
        notes.update(_odd(row))
    if wrong and on_bad_row == "error":
        remedy = " (--on-bad-row skip leaves bad rows out)" if examples else ""
        hint = f"; {advised}" if advised else ""
        raise DataError(f"{where} {told(refused, wrong, len(rows))}{hint}{remedy}")
    if not examples or kind is None:
        first = named[0]
        raise DataError(
            f"{where}: no usable row among {len(rows)}; the first: {where} row {first.row}: {first.message}"
        )
    return Parsed(
        tuple(examples),
        tuple(splits),
        kind,
        len(rows),
        dict(sorted(dropped.items())),
        tuple(numbers),
        tuple(named),
        dict(sorted(notes.items())),
    )


def told(first: Sequence[tuple[int, str]], dropped: Mapping[str, int], rows: int) -> str:
    """The first bad rows in words, and where there are more than one, how many there are for each reason.

    Where no row is good and the first ones all have the same fault, it is the set's, and is told once.
    """
    total = sum(dropped.values())
    named = [f"row {number}: {message}" for number, message in first]
    if total == 1 or len(first) < 2:
        return named[0]
    same = total == rows and len(dropped) == 1 and len({message for _, message in first}) == 1
    reasons = ", ".join(
        f"{n} {reason}" for reason, n in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{'; '.join(named[:1] if same else named)}; {total:,} of {rows:,} rows are bad: {reasons}"


def to_singles(examples: Iterable[Example]) -> list[Single]:
    """Unpaired examples; a pair becomes chosen (desirable), then rejected (undesirable)."""
    out: list[Single] = []
    for e in examples:
        if isinstance(e, Pair):
            out += [
                Single(e.prompt, text, desirable, e.source, person=e.person, share=e.share)
                for text, desirable in ((e.chosen, True), (e.rejected, False))
            ]
        else:
            out.append(e)
    return out


# --------------------------------------------------------------------------- one row


def _kind(row: Row) -> Literal["pairs", "singles"] | None:
    if "chosen" in row or "rejected" in row:
        return "pairs"
    return "singles" if "completion" in row else None


def _pair(row: Row) -> Pair:
    _require(row, PAIRED)
    prompt, chosen, rejected = (_text(row, column) for column in PAIRED)
    if chosen == rejected:
        raise BadRow(
            "chosen equals rejected",
            f"chosen == rejected ({shown(chosen)}); a pair needs two different completions",
        )
    p, tie = preference_of(row)
    return Pair(prompt, chosen, rejected, p, _source(row), _person(row), p_tie=tie)


def _single(row: Row) -> Single:
    _require(row, UNPAIRED)
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    return Single(prompt, completion, label_of(row["label"]), _source(row), person=_person(row))


def _require(row: Row, columns: Sequence[str]) -> None:
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        raise BadRow(
            "missing column",
            f"missing {word} {', '.join(missing)} (has {_names(row)}); want {', '.join(columns)}",
        )


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise BadRow(
            "not text", f"{column} is not text but {type(value).__name__} {shown(value)}; give a string"
        )
    if not value.strip():
        what = "empty prompt" if column == "prompt" else "empty completion"
        raise BadRow(what, f"empty {column}; give a string with at least one visible character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(
            "not text", f"{column} is not text: it holds half a surrogate pair; give valid Unicode"
        ) from None
    return value


def _odd(row: Row) -> list[str]:
    """What is odd about a row that is used."""
    if _kind(row) == "singles":
        return [UNREAD] if any(not absent(row.get(column)) for column in ("p_chosen", *VOTES)) else []
    chosen, rejected = (numeric(row.get(column)) for column in SCORES)
    return [SCORED_LOWER] if chosen is not None and rejected is not None and chosen <= rejected else []


def _source(row: Row) -> str | None:
    value = row.get("topic") if absent(row.get("source")) else row["source"]
    return None if absent(value) else str(value)


def _person(row: Row) -> str | None:
    value = next((row[name] for name in PERSONS if not absent(row.get(name))), None)
    return None if value is None else str(value)


def _split(row: Row) -> Split | None:
    value = row.get("split")
    if absent(value):
        return None
    name = (
        value.strip().lower().removesuffix(SPLIT_SUFFIX).rstrip("0123456789")
        if isinstance(value, str)
        else ""
    )
    if name == "train":
        return "train"
    if name in HELDOUT_SPLITS:
        return "heldout"
    raise BadRow(
        "unknown split", f"split is {shown(value)}; want train, or one of {', '.join(sorted(HELDOUT_SPLITS))}"
    )


def _names(row: Row) -> str:
    shown_names = [name if name.isprintable() else ascii(name) for name in map(str, row)]
    return ", ".join(shown_names[:12]) + (", ..." if len(shown_names) > 12 else "") if shown_names else "none"


def _both_layouts() -> str:
    return f"{', '.join(PAIRED)} nor {', '.join(UNPAIRED)}"
