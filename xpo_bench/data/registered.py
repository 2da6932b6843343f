"""Tasks made of rows that are in memory, by name: what a notebook has in place of a file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from typing_extensions import Doc

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.data.adhoc import AdHoc, as_name
from xpo_bench.data.dataset import dataset_of
from xpo_bench.data.formats import Row
from xpo_bench.data.sources import Loaded, NumberedRows, first
from xpo_bench.errors import DataError, UsageError
from xpo_bench.random_streams import stream

_ROWS: dict[str, NumberedRows] = {}
_TASKS: dict[str, RegisteredRows] = {}


@dataclass(frozen=True)
class RegisteredRows(AdHoc):
    """Rows that `xpo_bench.register_task` was given; other processes are sent them."""

    registered: Annotated[str, Doc("the name that the rows were registered under")] = ""

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The rows that were registered last under the name, as those of a file are read."""
        rows = list(first(_ROWS[self.registered], self.rows))
        # a copy: what a layout makes of its rows is no affair of the next seed
        loaded = Loaded(copy.deepcopy(rows), self.registered)
        return dataset_of(loaded, self.spec, self.heldout, stream(0, self.registered, "data"), model)


def register_task(
    name: str,
    rows: Iterable[Mapping[str, object]],
    *,
    heldout: float = 0.0,
    split_by: str = "prompt",
    world: str | None = None,
    columns: Mapping[str, str] | None = None,
    rankings: Literal["all", "best"] | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    strength: str | None = None,
) -> RegisteredRows:
    """Make a task of rows, which `xpo_bench.run(tasks=[NAME])` then knows in this process.

    Args:
        name: of the task; the rows of an earlier one of that name are replaced.
        rows: as those of a file: `prompt`, `chosen`, `rejected` or any layout that `--data` knows; or a frame
            of pandas.
        heldout, split_by, world, columns, rankings, on_bad_row, strength: as the options of `xpo-bench run
            --data`.

    Returns:
        The task, which `run` takes in place of its name, too.

    Raises:
        DataError: a bad row, by its number from 1 on, or no row at all.

    Example:
        >>> rows = [{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}]
        >>> xpo_bench.register_task("mine", rows)
        >>> xpo_bench.run(["dpo", "ipo"], tasks=["mine"]).show()
    """
    if not isinstance(name, str) or not name or as_name(name) != name:
        raise UsageError(
            f"task name {name!r}: want lower-case letters, digits, '.', '_' and '-', such as "
            f"{as_name(str(name)) or 'mine'!r}"
        )
    numbered = _numbered(name, rows)
    task = RegisteredRows(
        registered=name,
        heldout=heldout,
        split_by=split_by,
        world=world,
        columns=columns,
        rankings=rankings,
        on_bad_row=on_bad_row,
        strength=strength,
    )
    before = _ROWS.get(name)
    _ROWS[name] = numbered
    try:
        replace(task, heldout=0.0).data(0, ModelSpec())  # bad rows are told of here, not when they are run
    except BaseException:
        if before is None:
            del _ROWS[name]
        else:
            _ROWS[name] = before
        raise
    _TASKS[name] = task
    return task


def registered(name: str) -> RegisteredRows | None:
    """The task of that name in this process."""
    return _TASKS.get(name)


def _numbered(name: str, rows: Iterable[Mapping[str, object]]) -> NumberedRows:
    """Copies of rows with their numbers, from 1 on."""
    listed: object = rows
    if (notna := getattr(rows, "notna", None)) is not None:  # a frame, whose empty cells are NaN
        listed = rows.astype(object).where(notna(), None).to_dict("records")  # type: ignore[attr-defined]
    if isinstance(listed, str | bytes | Mapping) or not isinstance(listed, Iterable):
        got = type(rows).__name__
        raise DataError(f"{name}: want a list of rows, each a dictionary of columns, got {got}")
    out: NumberedRows = []
    for number, row in enumerate(listed, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name} row {number}: want a dictionary of columns, got {type(row).__name__}")
        copied: Row = copy.deepcopy(dict(row))
        out.append((number, copied))
    if not out:
        raise DataError(f"{name}: empty data set; at least one row is needed")
    return out
