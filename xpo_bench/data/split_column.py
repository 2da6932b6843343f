"""The values of the column that `--split-by` names, one for every example of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.formats import PERSONS, Row
from xpo_bench.data.layouts import Arranged
from xpo_bench.data.layouts.names import at, did_you_mean, names_of
from xpo_bench.data.splits import WORDS
from xpo_bench.data.values import absent
from xpo_bench.errors import DataError

CLUSTER = PERSONS[0]


def column_values(
    rows: Sequence[tuple[int, Row]], arranged: Arranged, spec: DataSpec, numbers: Sequence[int], source: str
) -> list[str] | None:
    """The value of the column in the row of each example; None where the split is by no column.

    A column goes by its name in the file, by a path such as `info.annotator` into a nested one, or by the
    name that it was read as: `--columns person=annotator --split-by person`. `cluster` is whose preference a
    row is, under whichever name it is read. Numbers and text that are written alike are one value, as they
    are in files without types.

    Args:
        rows: as they were read. arranged: the same in TRL's columns. numbers: the row of each example.

    Raises:
        DataError: there is no such column, a row of an example has nothing in it, or an example is made of
            several rows, which may differ in it.
    """
    by = spec.split_by
    if by in WORDS:
        return None
    if arranged.gathered:
        raise DataError(
            f"{source}: --split-by {by}: layout {arranged.layout} makes pairs of several rows, "
            "which may differ in a column; want prompt or row"
        )
    names = names_of(row for _, row in rows)
    column = _found(by, names, arranged.columns, source)
    wanted, known = set(numbers), dict[int, str]()
    for number, row in rows:
        if number not in wanted:
            continue
        value = row[column] if column in row else at(row, column)
        if absent(value):
            raise DataError(
                f"{source} row {number}: --split-by {by}: nothing in column {column}; "
                "want a value in every row that is used"
            )
        known[number] = str(value)
    return [known[number] for number in numbers]


def _found(by: str, names: Sequence[str], read: Mapping[str, str], source: str) -> str:
    """The column, or the path into one, that a name means."""
    same: tuple[str, ...] = PERSONS if by == CLUSTER else (by,)
    for column in (*same, *(read.get(name, "") for name in same)):
        if column in names or ("." in column and column.partition(".")[0] in names):
            return column
    raise DataError(
        f"{source}: --split-by {by}: no such column; want prompt, row or a column{did_you_mean(by, names)}"
    )
