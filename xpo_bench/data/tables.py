"""Rows of .csv, .tsv and .parquet files. No type is guessed, so that texts stay as they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from xpo_bench.data.formats import PAIRED, UNPAIRED
from xpo_bench.data.reading import Numbered, Reading, first_line
from xpo_bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def csv(file: IO[bytes], reading: Reading) -> Numbered:
    return _separated(file, reading, reading.separator or ",")


def tsv(file: IO[bytes], reading: Reading) -> Numbered:
    return _separated(file, reading, reading.separator or "\t")


def _separated(file: IO[bytes], reading: Reading, separator: str) -> Numbered:
    number = 0
    names: list[str] = []
    kept: Collection[str] = ()
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
            _check_separator(names, reading.where, separator)
        for values in rows:
            number += 1
            row = {names[i]: _typed(names[i], values[i]) for i in keep}
            yield number, {**_unread(names, kept, number), **row}


def _check_separator(names: list[str], where: str, separator: str) -> None:
    """Refuse a table of one column whose name holds what looks like another separator, several times."""
    for other, word in ((";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")):
        if len(names) == 1 and other != separator and names[0].count(other) > 1:
            raise DataError(
                f"{where}: its columns look separated by {word}; "
                "save it as .csv with commas or as .tsv with tabs"
            )


def _unread(names: Sequence[str], kept: Collection[str], number: int) -> dict[str, None]:
    """Columns that are left unread, as missing ones.

    In the first row, for errors that name every column; and in all rows where the columns that are read are
    no preference set by themselves.
    """
    whole = set(PAIRED) <= set(kept) or set(UNPAIRED) <= set(kept)
    return {} if whole and number > 1 else dict.fromkeys(name for name in names if name not in kept)


def _frames(file: IO[bytes], reading: Reading, separator: str) -> Iterator[pd.DataFrame]:
    """A CSV file as data frames of text, so many rows at a time; the header is the first row of the first."""
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
    """Values of a row of CSV, which has no types: numbers are read once their columns are known.

    A missing field is missing, and so is a label, a split or a source without text.
    """
    if not isinstance(value, str):
        return None
    return (
        (value or None)
        if column.strip().lower() in ("label", "split", "source", "topic", "person")
        else value
    )


# --------------------------------------------------------------------------- parquet


def parquet(file: IO[bytes], reading: Reading) -> Numbered:
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
                read_ = {name: read(row[name]) for name, read in decode.items()}
                yield number, {**_unread(names, known, number), **row, **read_}
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(f"{reading.where}: not a readable parquet file ({first_line(error)})") from None


def _json_decoder(kind: Any, metadata: Mapping[bytes, bytes] | None = None) -> Callable[[Any], object] | None:
    """Decoder of a type that contains JSON (extension arrow.json); None for other types."""
    import pyarrow as pa

    if (
        getattr(kind, "extension_name", "") == "arrow.json"
        or (metadata or {}).get(b"ARROW:extension:name") == b"arrow.json"
    ):
        return _from_json
    if isinstance(kind, pa.BaseExtensionType):
        return _json_decoder(kind.storage_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        # JSON may stand deep inside lists and structs: a decoder is built once per column, not per cell
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


def _from_json(value: object) -> object:
    """The value of a JSON cell; `datasets` writes text that it takes for JSON, such as 007, as it is."""
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        return value
