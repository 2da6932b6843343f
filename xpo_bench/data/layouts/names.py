"""Names of a set's columns: those that are there, those that `--columns` maps, and paths into nested ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches

from xpo_bench.data.cells import structure
from xpo_bench.data.formats import Row
from xpo_bench.errors import DataError


def names_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in order."""
    found: dict[str, None] = {}
    before: tuple[str, ...] = ()
    for row in rows:
        keys = tuple(row)
        if keys != before:
            found.update(dict.fromkeys(keys))
            before = keys
    return list(found)


def _fields(rows: Iterable[Row], column: str) -> list[str]:
    """The fields of the first object in a column."""
    found = next((v for row in rows if isinstance(v := structure(row.get(column)), Mapping)), {})
    return list(map(str, found))


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """The nearest of the names, if one is near, and what there is: the end of an error."""
    close = get_close_matches(name, list(map(str, names)), n=1, cutoff=0.6)
    shown_ = ", ".join(map(str, names[:12])) or "none"
    return (
        f"; did you mean {close[0]!r}?" if close else ""
    ) + f" (has {shown_}{', ...' if len(names) > 12 else ''})"


def renaming(
    names: Sequence[str], columns: Mapping[str, str], rows: Sequence[Row], known: Collection[str], where: str
) -> dict[str, str]:
    """New name -> column, of those that have to be renamed.

    Raises:
        DataError: `columns` names a column, or a path into one, that the set does not have.
    """
    for new, old in columns.items():
        if old in names:
            continue
        head, _, rest = old.partition(".")
        if head not in names or not rest:
            raise DataError(f"{where}: --columns {new}={old}: no such column{did_you_mean(old, names)}")
        if all(at(row, old) is None for row in rows):
            inside = [f"{head}.{key}" for key in _fields(rows, head)]
            raise DataError(
                f"{where}: --columns {new}={old}: no row has such a field{did_you_mean(old, inside)}"
            )
    return {**similar(names, known, {*columns, *columns.values()}), **columns}


def similar(names: Sequence[str], known: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Columns that differ from a known one in case and surrounding blanks alone: known name -> column."""
    folded = {name.casefold(): name for name in known}
    out: dict[str, str] = {}
    for name in names:
        target = folded.get(str(name).strip().casefold())
        if (
            target
            and target != name
            and target not in names
            and target not in taken
            and name not in taken
            and target not in out
        ):
            out[target] = name
    return out


def rename(row: Row, renamed: Mapping[str, str]) -> Row:
    old = set(renamed.values())
    out = {name: value for name, value in row.items() if name not in old and name not in renamed}
    for new, column in renamed.items():
        value = row[column] if column in row else at(row, column)
        if value is not None or column in row:
            out[new] = value
    return out


def at(row: Row, path: str) -> object:
    """A value inside nested objects and lists: `info.post`, `answers.0.text`; None where there is none."""
    value: object = row
    for part in path.split("."):
        value = structure(value)
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
