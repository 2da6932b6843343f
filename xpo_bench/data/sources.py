"""Where rows come from: a local file, a name under `XPO_BENCH_DATA`, or a hub id. Rows are raw columns here."""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xpo_bench.data import hub
from xpo_bench.data.formats import COLUMNS, NUMBERS, Row
from xpo_bench.errors import DataError
from xpo_bench.types import DataSpec

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "XPO_BENCH_DATA"
"""Environment variable that names a directory searched for NAME.parquet, NAME.jsonl, ..."""
BATCH = 4096
"""Rows of a parquet file that are read at a time."""
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")

NumberedRows = list[tuple[int, Row]]


class Loaded(NamedTuple):
    """Raw rows, numbered from 1 (line numbers in .jsonl), where they came from, and the commit of a hub set."""

    rows: NumberedRows
    source: str
    revision: str | None = None


def load(spec: DataSpec) -> Loaded:
    """The raw rows of a data set, the first `spec.rows` of each split where that is given.

    A name under `XPO_BENCH_DATA` goes before a hub id; what ends in a known suffix or exists is a file.

    Raises:
        DataError: no such file, an unreadable, malformed or empty one.
        UnreachableError: a hub id that cannot be had from this machine.
    """
    source = spec.source
    named = find(source)
    path = named or Path(source)
    if named or path.suffix.lower() in READERS or os.path.exists(path):
        loaded = Loaded(read_file(path, spec.rows), source)
    elif hub.ID.fullmatch(source):
        rows, revision = hub.load(source, spec.rows)
        loaded = Loaded(list(enumerate(rows, 1)), source, revision)
    else:
        raise DataError(f"no data set {source!r}: {_not_found()}")
    if not loaded.rows:
        raise DataError(f"{source}: empty data set; at least one row is needed")
    return loaded


def find(name: str) -> Path | None:
    """The file of a bare name under the directory that `XPO_BENCH_DATA` names, if there is one."""
    folder = os.environ.get(VARIABLE)
    if not folder or not NAME.fullmatch(name):
        return None
    return next((path for suffix in READERS if (path := Path(folder) / (name + suffix)).is_file()), None)


def read_file(path: Path, limit: int | None = None) -> NumberedRows:
    """The rows of one .parquet, .jsonl, .json or .csv file, of each value of its `split` column at most the first `limit`.

    Raises:
        DataError: the file is missing, unreadable, of another format, or malformed (with the line number).
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; want {', '.join(READERS)}")
    try:
        return list(first(reader(path, limit), limit))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {_not_found()}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or type(error).__name__}); want a readable file") from None


def first(rows: Iterable[tuple[int, Row]], limit: int | None) -> Iterator[tuple[int, Row]]:
    """The first rows of each split; of a set without splits nothing further is read."""
    seen: Counter[str | None] = Counter()
    for number, row in rows:
        split = None if row.get("split") is None else str(row["split"])
        seen[split] += 1
        if limit is None or seen[split] <= limit:
            yield number, row
        if seen[None] == limit and len(seen) == 1:
            return


# --------------------------------------------------------------------------- formats


def _jsonl(path: Path, _: int | None) -> Iterable[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _object(_decode(line.strip(), f"{path} line {number}"), f"{path} line {number}")


def _json(path: Path, _: int | None) -> Iterable[tuple[int, Row]]:
    content = _decode(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(content, list):
        raise DataError(f"{path}: holds {type(content).__name__}; want a list of objects (one object per line is .jsonl)")
    for number, item in enumerate(content, 1):
        yield number, _object(item, f"{path} row {number}")


def _csv(path: Path, limit: int | None) -> Iterable[tuple[int, Row]]:
    number = 0
    for frame in _frames(path, min(limit or BATCH, BATCH)):
        alien = not {"chosen", "rejected", "completion"}.intersection(frame.columns)
        for values in frame.itertuples(index=False, name=None):
            number += 1
            columns = zip(frame.columns, values, strict=True)
            if alien:  # to be refused, by the names that it has
                yield number, dict(columns)
                continue
            yield number, _conversation({name: _typed(name, value) for name, value in columns if name in COLUMNS})


def _frames(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    """A CSV file as data frames of text, so many rows at a time."""
    import pandas as pd

    frames = None
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # surplus fields are cut off with a warning only
                frames = frames or pd.read_csv(
                    path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False, chunksize=rows
                )
                frame = next(frames)
        except (StopIteration, pd.errors.EmptyDataError):
            return
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            reason = hub.first_line(error)
            raise DataError(f"{path}: malformed CSV ({reason}); quote fields that hold commas or line breaks") from None
        yield frame


def _typed(column: str, value: object) -> object:
    """CSV knows no types: numbers and labels are read from text; what is absent or cannot be read stays visible as such."""
    if not isinstance(value, str):
        return None
    if column == "label":
        return {"true": True, "false": False}.get(value.strip().lower(), value or None)
    if column in NUMBERS:
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value
    if column in ("split", "source", "topic"):
        return value or None
    return value


def _conversation(row: dict[str, object]) -> dict[str, object]:
    """A CSV row with the messages that its cells spell as JSON; a row of plain text as it is.

    One cell that spells a list of objects makes the row conversational: lists in its other cells are then messages
    too, an empty completion is one without messages, and an empty prompt is none.
    """
    spelled = {c: _spelled(row.get(c)) for c in ("prompt", "chosen", "rejected", "completion")}
    if not any(items and isinstance(items[0], dict) for items in spelled.values()):
        return row
    lists: dict[str, object] = {column: items for column, items in spelled.items() if items is not None}
    for column in spelled.keys() & row.keys() - lists.keys():
        if not str(row[column]).strip():
            lists[column] = None if column == "prompt" else []
    return {**row, **lists}


def _spelled(value: object) -> list[Any] | None:
    """The list that a cell spells as JSON, or as Python where a data frame of lists was written; None for text."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return items if isinstance(items, list) else None
    return None


def _parquet(path: Path, limit: int | None) -> Iterable[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            known = [name for name in names if name in COLUMNS]
            if file.metadata.num_rows and not {"chosen", "rejected", "completion"}.intersection(known):
                return [(1, dict.fromkeys(names))]  # no preference set: the refusal names its columns
            batches = file.iter_batches(batch_size=min(limit or BATCH, BATCH), columns=known)
            return list(first(enumerate((row for batch in batches for row in batch.to_pylist()), 1), limit))
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a readable parquet file ({hub.first_line(error)})") from None


READERS: dict[str, Callable[[Path, int | None], Iterable[tuple[int, Row]]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
}


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise DataError(f"{where}: malformed JSON at {place} ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{where}: malformed JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{where}: malformed JSON ({hub.first_line(error)})") from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds {type(value).__name__}; want an object with columns, such as prompt, chosen, rejected")
    return value


def _not_found() -> str:
    folder = os.environ.get(VARIABLE)
    under = "holds no such name" if folder else "is not set"
    return f"give a {', '.join(READERS)} file, a hub id OWNER/NAME[@REVISION], or a name under {VARIABLE} (which {under})"
