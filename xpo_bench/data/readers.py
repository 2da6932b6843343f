"""Readers of single files: .parquet, .jsonl, .json, .csv and .tsv, plain or compressed, from a disk or a hub alike.

A reader turns one open binary file into numbered rows of raw columns. Texts stay the texts that the file holds: no reader
guesses types, so that `None`, `NA`, `007` and dates are what they were.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any

from xpo_bench.data.formats import COLUMNS, HELDOUT_SPLITS, NUMBERS, Row
from xpo_bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BATCH = 4096
"""Rows of a table that are read at a time."""
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
CELL = 1 << 31
NumberedRows = list[tuple[int, Row]]
Numbered = Iterable[tuple[int, Row]]


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Args:
        where: the file, for messages. limit: rows that are asked for, so that no more are read ahead; None for all.
        wanted: names of all columns -> those that are read, for formats that hold columns.
        separator: of .csv files. field: of .json files, the key under which the rows are; None finds them.
    """

    where: str
    limit: int | None = None
    wanted: Callable[[Sequence[str]], Collection[str]] = lambda names: names
    separator: str | None = None
    field: str | None = None

    @property
    def batch(self) -> int:
        return min(self.limit or BATCH, BATCH)


def kind_of(name: str) -> tuple[str, str | None] | None:
    """The suffix of a file that can be read and its compression; None for other files."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    compression = COMPRESSED.get(suffixes[-1]) if suffixes else None
    suffix = (suffixes[-2:-1] if compression else suffixes[-1:]) or [""]
    return (suffix[0], compression) if suffix[0] in READERS else None


def rows_of(name: str, file: IO[bytes], reading: Reading) -> Numbered:
    """The rows of an open file, by the suffix of its name.

    Raises:
        DataError: an unknown suffix, or a malformed file (with the line number).
        UnicodeDecodeError, OSError: the bytes cannot be had or are no text.
    """
    kind = kind_of(name)
    if kind is None:
        raise DataError(
            f"{reading.where}: unknown kind of file; want {', '.join(READERS)}, or one of them with {', '.join(COMPRESSED)}"
        )
    suffix, compression = kind
    if compression is None:
        return READERS[suffix](file, reading)
    import pyarrow as pa

    return _unpacked(
        READERS[suffix], pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression), reading
    )


def _unpacked(reader: Callable[[Any, Reading], Numbered], stream: Any, reading: Reading) -> Numbered:
    try:
        # a table's end has to be looked at first
        yield from reader(
            io.BytesIO(stream.read()) if reader is _parquet else io.BufferedReader(stream), reading
        )
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"{reading.where}: cannot be unpacked ({first_line(error)}); compress it again"
        ) from None


def first_line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# --------------------------------------------------------------------------- JSON


def _jsonl(file: IO[bytes], reading: Reading) -> Numbered:
    return _lines(io.TextIOWrapper(file, encoding="utf-8-sig"), reading.where)


def _lines(lines: Iterable[str], where: str) -> Numbered:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _object(_decode(line.strip(), f"{where} line {number}"), f"{where} line {number}")


def _json(file: IO[bytes], reading: Reading) -> Numbered:
    """A list of objects, an object that wraps one, one list for each split, or one object per line."""
    text, where = file.read().decode("utf-8-sig"), reading.where
    if _is_lines(text):
        yield from _lines(text.splitlines(), where)
        return
    content = _decode(text, where)
    if reading.field is not None and isinstance(content, dict):
        content = content.get(reading.field)
    if isinstance(content, dict):
        content = _wrapped(content, where)
    if not isinstance(content, list):
        raise DataError(
            f"{where}: holds {type(content).__name__}; want a list of objects (one object per line is .jsonl)"
        )
    for number, item in enumerate(content, 1):
        yield number, _object(item, f"{where} row {number}")


def _is_lines(text: str) -> bool:
    """Whether the first line is a whole object and another one follows."""
    head, _, rest = text.lstrip().partition("\n")
    if not head.startswith("{") or not rest.lstrip().startswith("{"):
        return False
    try:
        json.loads(head)
    except (ValueError, RecursionError):
        return False
    return True


def _wrapped(content: dict[str, Any], where: str) -> Any:
    """The rows of `{"data": [...]}`, or of `{"train": [...], "test": [...]}` with their split."""
    lists = {
        k: v
        for k, v in content.items()
        if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)
    }
    splits = {"train", *HELDOUT_SPLITS}
    if lists and lists.keys() <= splits:
        return [{"split": split, **item} for split, items in lists.items() for item in items]
    if len(lists) == 1 and not lists.keys() & COLUMNS:
        return next(iter(lists.values()))
    if len(lists) > 1 and not lists.keys() & COLUMNS:
        raise DataError(
            f"{where}: holds several lists ({', '.join(list(lists)[:6])}); want one, or one for each split"
        )
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"column {next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise DataError(f"{where}: malformed JSON at {place} ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{where}: malformed JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{where}: malformed JSON ({first_line(error)})") from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: holds {type(value).__name__}; want an object with columns, such as prompt, chosen, rejected"
        )
    return value


# --------------------------------------------------------------------------- CSV


def _csv(file: IO[bytes], reading: Reading) -> Numbered:
    return _separated(file, reading, reading.separator or ",")


def _tsv(file: IO[bytes], reading: Reading) -> Numbered:
    return _separated(file, reading, reading.separator or "\t")


def _separated(file: IO[bytes], reading: Reading, separator: str) -> Numbered:
    number = 0
    names: list[str] = []
    keep: list[int] = []
    for frame in _frames(file, reading, separator):
        rows = frame.itertuples(index=False, name=None)
        if not names:
            names = [value if isinstance(value, str) else "" for value in next(rows, ())]
            kept = set(reading.wanted(names))
            for name in kept:
                if names.count(name) > 1:
                    raise DataError(f"{reading.where}: column {name!r} is given twice; rename one of them")
            keep = [i for i, name in enumerate(names) if name in kept or not kept]
        for values in rows:
            number += 1
            yield number, {names[i]: _typed(names[i], values[i]) for i in keep}


def _frames(file: IO[bytes], reading: Reading, separator: str) -> Iterator[pd.DataFrame]:
    """A CSV file as data frames of text, so many rows at a time; the first row of the first one is the header."""
    import pandas as pd

    frames = None
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", pd.errors.ParserWarning
                )  # surplus fields are cut off with a warning only
                frames = frames or pd.read_csv(
                    file,
                    sep=separator,
                    dtype=str,
                    keep_default_na=False,
                    encoding="utf-8-sig",
                    index_col=False,
                    header=None,
                    chunksize=reading.batch + 1,
                )
                frame = next(frames)
        except (StopIteration, pd.errors.EmptyDataError):
            return
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            reason = first_line(error)
            raise DataError(
                f"{reading.where}: malformed CSV ({reason}); quote fields that hold commas or line breaks"
            ) from None
        yield frame


def _typed(column: str, value: object) -> object:
    """CSV knows no types: numbers are read from text; what is absent or cannot be read stays visible as such."""
    if not isinstance(value, str):
        return None
    name = column.strip().lower()
    if name in NUMBERS:
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value
    return (value or None) if name in ("label", "split", "source", "topic") else value


# --------------------------------------------------------------------------- parquet


def _parquet(file: IO[bytes], reading: Reading) -> Numbered:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            names = list(table.schema_arrow.names)
            known = list(reading.wanted(names))
            for name in known:
                if names.count(name) > 1:
                    raise DataError(f"{reading.where}: column {name!r} is there twice; rename one of them")
            if not known:
                if table.metadata.num_rows:
                    yield 1, dict.fromkeys(names)  # no preference set: the refusal names its columns
                return
            decode = {
                f.name: d
                for f in table.schema_arrow
                if f.name in known and (d := _json_decoder(f.type, f.metadata)) is not None
            }
            batches = table.iter_batches(batch_size=reading.batch, columns=known)
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(rows, 1):
                yield (
                    number,
                    {**row, **{name: read(row[name]) for name, read in decode.items()}} if decode else row,
                )
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(f"{reading.where}: not a readable parquet file ({first_line(error)})") from None


def _json_decoder(kind: Any, metadata: Any = None) -> Callable[[Any], Any] | None:
    """What reads the values of a type that holds JSON somewhere inside (extension arrow.json); None where none is."""
    import pyarrow as pa

    if (
        getattr(kind, "extension_name", "") == "arrow.json"
        or (metadata or {}).get(b"ARROW:extension:name") == b"arrow.json"
    ):
        return _from_json
    if isinstance(kind, pa.BaseExtensionType):
        return _json_decoder(kind.storage_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _json_decoder(kind.value_type, kind.value_field.metadata)
        return (
            None
            if inner is None
            else lambda value: None if value is None else [inner(item) for item in value]
        )
    if pa.types.is_struct(kind):
        fields = {
            f.name: d
            for f in (kind.field(i) for i in range(kind.num_fields))
            if (d := _json_decoder(f.type, f.metadata)) is not None
        }
        if fields:
            return lambda value: (
                None
                if value is None
                else {**value, **{name: read(value[name]) for name, read in fields.items()}}
            )
    return None


def _from_json(value: Any) -> Any:
    """What a JSON cell holds. `datasets` writes a text such as 007, which it takes for JSON, as it is: that is text."""
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        return value


READERS: dict[str, Callable[[IO[bytes], Reading], Numbered]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}
