"""Layouts of public sets: recognised by column names and value shapes, converted to TRL's columns.

`arrange` takes raw rows as a reader gives them and returns rows in TRL's columns. An explicit mapping of
columns goes first, then names that differ in case or blanks alone, then the first layout whose columns are
there and whose first row has its shape.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from xpo_bench.data.cells import conversation, read_conversations, spells_messages, structure
from xpo_bench.data.formats import COLUMNS, PASSED, PERSONS, SCORE_NAMES, SCORES, BadRow, Row
from xpo_bench.data.layouts import conversations, pairs, rankings
from xpo_bench.data.layouts.base import Context, Layout, Numbered, words
from xpo_bench.data.layouts.guess import advice
from xpo_bench.data.layouts.names import names_of, rename, renaming, similar
from xpo_bench.data.strengths import COLUMN, Link, source, with_strength
from xpo_bench.data.values import VOTES, absent, is_tie
from xpo_bench.errors import DataError, UsageError, unknown

__all__ = ["LAYOUTS", "Arranged", "Layout", "advice", "arrange", "check_columns", "wanted"]

LAYOUTS: tuple[Layout, ...] = (*conversations.LAYOUTS, *pairs.LAYOUTS, *rankings.LAYOUTS)
"""Every layout besides TRL's own, in the order in which they are looked for."""
TRL = "trl"
TALK = (
    "prompt", "chosen", "rejected", "completion", "messages", "conversations",
    "conversation_a", "conversation_b", "context",
)  # fmt: skip
"""Columns whose cells may be messages."""
TEXTS = ("prompt", "chosen", "rejected", "completion")
KNOWN = frozenset({*COLUMNS, *PASSED, *SCORE_NAMES}).union(
    *(layout.needs | layout.also for layout in LAYOUTS)
)
"""Every column that any layout reads."""
SPELT = "completion that spells a list of texts, used as it is"
UNITS = frozenset({"source", "topic", "split", *PERSONS})
"""Names that may stand for a column that is something else as well."""
FITTED = 100
"""First rows with all columns of a layout that are searched for one of its shape."""


@dataclass(frozen=True)
class Arranged:
    """Rows in TRL's columns, or the reason why one is bad; their layout, and counts of notes.

    Args:
        columns: what was read from where: of the layout, of `--columns`, and names that differed in case or
        blanks.
        gathered: an example may be made of several rows.
    """

    rows: Sequence[tuple[int, Row | BadRow]]
    layout: str
    columns: Mapping[str, str]
    notes: Mapping[str, int]
    gathered: bool = False


def arrange(
    rows: Sequence[tuple[int, Row]],
    where: str,
    columns: Mapping[str, str] | None = None,
    pairs_of: Literal["all", "best"] = "all",
    link: Link | None = None,
) -> Arranged:
    """Bring raw rows into TRL's columns.

    Args:
        rows: (row number, columns) in order. where: the file or set, for messages.
        columns: name that a layout reads -> column of the set, or a path such as `info.post` into a nested
            one.
        pairs_of: all pairs of a ranking, or its best answer against each of the others.
        link: what makes probabilities of strengths.

    Raises:
        DataError: `columns` names a column that the set does not have, or there is a link and no strength.
    """
    names = names_of(row for _, row in rows)
    renamed = renaming(names, columns or {}, [row for _, row in rows], KNOWN, where)
    out: Numbered = [(number, rename(row, renamed)) for number, row in rows] if renamed else rows
    if renamed:
        names = names_of(row for _, row in out if not isinstance(row, BadRow))
    layout = _recognised(names, [row for _, row in out if not isinstance(row, BadRow)])
    _check_read(columns or {}, layout, names, out, where)
    used = TEXTS if layout is None or layout.beside else layout.needs | layout.also
    out = read_conversations(out, [column for column in TALK if column in names and column in used])
    context = Context(pairs_of, link)
    if spelt := sum(
        any(_spells_texts(row.get(c)) for c in TEXTS[1:]) for _, row in out if not isinstance(row, BadRow)
    ):
        context.notes[SPELT] = spelt
    if layout is not None:
        out = layout.gather(out, context) if layout.gather else _mapped(out, layout, context)
    read = {**(layout.columns if layout else {}), **{new: old for new, old in renamed.items() if new != old}}
    if layout is not None and "ranking" in layout.columns:
        read["rankings"] = pairs_of
    if COLUMN in (columns or {}) and link is None:
        raise DataError(f"{where}: --columns strength={(columns or {})[COLUMN]}: goes with --strength K")
    out, linked = _linked([(n, _finished(row)) for n, row in out], context)
    if link is not None and not linked:
        raise DataError(
            f"{where}: --strength: no row has a strength (want a column strength, score_chosen and "
            "score_rejected, or a layout with strengths, docs/labels.md)"
        )
    if link is not None:
        read["p_chosen"] = link.told(linked)
    return Arranged(
        out,
        layout.name if layout else TRL,
        read,
        context.notes,
        layout is not None and layout.gather is not None,
    )


def wanted(
    names: Sequence[str], columns: Mapping[str, str] | None = None, also: Collection[str] = ()
) -> Collection[str]:
    """The columns that have to be read: those of TRL, of `--columns`, and of every layout that may fit.

    And those of `also`, by themselves or as the head of a path.

    None where the set has no layout at all.
    """
    renamed = {**similar(names, KNOWN, set()), **(columns or {})}
    present = {*names, *renamed}
    fitting = [layout for layout in LAYOUTS if layout.needs <= present]
    if not fitting and not present & {"chosen", "rejected", "completion"}:
        return []
    keep = {*COLUMNS, *PASSED, *SCORE_NAMES}
    keep = keep.union(*(layout.needs | layout.also for layout in fitting))
    mapped = {
        old if old in names else old.partition(".")[0]
        for new, old in renamed.items()
        if new in keep or new in (columns or {})
    }
    mapped |= {column if column in names else column.partition(".")[0] for column in also}
    return [name for name in names if name in keep or name in mapped]


def check_columns(given: object) -> dict[str, str]:
    """`--columns` as a mapping: text `chosen=a,rejected=b`, with `\\,` for a comma in a name, or a table.

    Raises:
        UsageError: no such words, a name that no layout reads, the same name twice, or one column for two
        names.
    """
    expected = "expected NAME=COLUMN[,NAME=COLUMN], such as chosen=response_a,rejected=response_b"
    if isinstance(given, Mapping):
        pairs_ = list(given.items())
    elif isinstance(given, str | list | tuple):
        words_ = re.split(r"(?<!\\),", given) if isinstance(given, str) else [str(w) for w in given]
        parts = [word.replace("\\,", ",").partition("=") for word in words_ if word.strip()]
        pairs_ = [(left.strip(), right.strip() if equals else "") for left, equals, right in parts]
    else:
        raise UsageError(f"--columns {given!r}: {expected}")
    out: dict[str, str] = {}
    for name, column in pairs_:
        if not isinstance(name, str) or not isinstance(column, str) or not name or not column:
            more = "; write a comma within a name as \\," if isinstance(given, str) and "=" in given else ""
            raise UsageError(f"--columns {name or given}: {expected}{more}")
        if name not in KNOWN:
            close = unknown("name in --columns", name, KNOWN).partition(" (known:")[0]
            raise UsageError(
                f"{close}; want prompt, chosen, rejected, completion, label, "
                "or a column of a layout (docs/data.md)"
            )
        if name in out:
            raise UsageError(f"--columns {name}: given twice")
        twin = next((n for n, c in out.items() if c == column and not {n, name} & UNITS), None)
        if twin:
            raise UsageError(f"--columns {twin}={column},{name}={column}: one column cannot be both")
        out[name] = column
    if not out:
        raise UsageError(f"--columns: {expected}")
    return out


# --------------------------------------------------------------------------- rows


def _recognised(names: Sequence[str], rows: Sequence[Row]) -> Layout | None:
    present = set(names)
    complete = {"prompt", "chosen", "rejected"} <= present or {"prompt", "completion", "label"} <= present
    for layout in LAYOUTS:
        if not layout.needs <= present or (complete and not layout.beside):
            continue
        shape = words("prompt chosen rejected") if layout.beside else layout.needs
        whole = (row for row in rows if all(row.get(column) is not None for column in shape & present))
        first = list(islice(whole, FITTED))
        if any(layout.fits(_spelt_out(row)) for row in first) or not (first or layout.shaped):
            return layout
    return None


def _spells_texts(value: object) -> bool:
    """Whether text spells a list of texts, as a CSV file spells the lists of another kind of set."""
    if not isinstance(value, str) or not value.lstrip().startswith("[") or not value.rstrip().endswith("]"):
        return False
    found = structure(value)
    return isinstance(found, list) and bool(found) and all(isinstance(item, str) for item in found)


def _spelt_out(row: Row) -> Row:
    """The row with messages in place of text that spells them, to look at its shape."""
    return {
        name: structure(value) if name in TALK and spells_messages(value) else value
        for name, value in row.items()
    }


def _mapped(rows: Numbered, layout: Layout, context: Context) -> Numbered:
    out: list[tuple[int, Row | BadRow]] = []
    for number, row in rows:
        if isinstance(row, BadRow):
            out.append((number, row))
            continue
        try:
            missing = [column for column in sorted(layout.needs) if row.get(column) is None]
            if missing and not layout.beside:
                word = "column" if len(missing) == 1 else "columns"
                raise BadRow(
                    "missing column",
                    f"missing {word} {', '.join(missing)}; layout {layout.name} wants "
                    f"{', '.join(sorted(layout.needs))}",
                )
            kept = {
                name: row[name]
                for name in (*PASSED, *_kept(layout))
                if name in row and not (name == "system" and name in layout.needs | layout.also)
            }
            out += [(number, {**kept, **new}) for new in layout.rows(row, context)]
        except BadRow as bad:
            out.append((number, bad))
    return out


KEPT = ("split", "source", "topic", *PERSONS, *SCORE_NAMES)
"""Columns that every layout hands on."""


def _kept(layout: Layout) -> tuple[str, ...]:
    """Columns of TRL's that a layout passes on; a row of one pair may have a probability."""
    return KEPT if "ranking" in layout.columns else (*KEPT, "p_chosen", *VOTES)


def _check_read(
    columns: Mapping[str, str], layout: Layout | None, names: Sequence[str], rows: Numbered, where: str
) -> None:
    """Refuse a mapping to a name that the set is not read by, which would do nothing.

    Raises:
        DataError: a name that neither the layout nor TRL's columns read.
    """
    read = {*PASSED, *(KEPT if layout and not layout.beside else (*COLUMNS, *SCORE_NAMES))}
    # TRL's columns say who has won: a verdict adds that nobody has, and one that never does adds nothing
    if "winner" in columns and not any(
        is_tie(row.get("winner")) for _, row in rows if isinstance(row, Mapping)
    ):
        read -= {"winner"}
    if layout is not None:
        read |= {*layout.needs, *layout.also, *(_kept(layout) if layout.gather is None else ())}
    for new, old in columns.items():
        if new not in read:
            name = f"layout {layout.name}" if layout else "a set in TRL's columns"
            others = [one for one in LAYOUTS if new in one.needs]
            best = max(others, key=lambda one: len(one.needs & set(names)) / len(one.needs), default=None)
            other = f"; layout {best.name} does, and wants {', '.join(sorted(best.needs))}" if best else ""
            raise DataError(f"{where}: --columns {new}={old}: {name} does not read {new}{other}")


def _linked(rows: Numbered, context: Context) -> tuple[Numbered, str]:
    """The rows with probabilities of their strengths, and what these were read from; empty where nothing."""
    pairs_ = [row for _, row in rows if not isinstance(row, BadRow) and {"chosen", "rejected"} <= row.keys()]
    if context.link is None:
        unread = sum(not absent(row.get(COLUMN)) for row in pairs_)
        if unread:
            context.notes["strength not read: --strength K makes a probability of it"] = unread
        return rows, ""
    if context.linked:
        return rows, context.linked
    out: list[tuple[int, Row | BadRow]] = []
    used = ""
    for number, row in rows:
        try:
            if not isinstance(row, BadRow) and {"chosen", "rejected"} <= row.keys():
                used = used or source(row)
                row = with_strength(row, context.link)
        except BadRow as bad:
            row = bad
        out.append((number, row))
    return out, used


def _finished(row: Row | BadRow) -> Row | BadRow:
    """Messages in one form, names of scores as TRL's, a list of sources as one text."""
    if isinstance(row, BadRow):
        return row
    out = dict(row)
    try:
        for column in TEXTS:
            if isinstance(out.get(column), Mapping | list):
                out[column] = conversation(out[column], column)
    except BadRow as bad:
        return bad
    for name, others in SCORES.items():
        given = next((out[other] for other in (name, *others) if out.get(other) is not None), None)
        if given is not None:
            out[name] = given
    if isinstance(sources := structure(out.get("source")), list):
        out["source"] = ", ".join(map(str, sources))
    return out


def count(notes: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Two counts as one, in the order of their names."""
    return dict(sorted((Counter(notes) + Counter(more)).items()))
