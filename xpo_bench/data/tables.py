"""Rows of tables: .csv, .tsv and .parquet files. No type is guessed, so that texts stay what they were."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from xpo_bench.data.formats import NUMBERS
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
    """A CSV file as data frames of text, so many rows at a time; the first row of the first one is the
    header."""
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
    """CSV knows no types: numbers are read from text; what is absent or cannot be read stays visible as
    such."""
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
                yield (
                    number,
                    {**row, **{name: read(row[name]) for name, read in decode.items()}} if decode else row,
                )
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(f"{reading.where}: not a readable parquet file ({first_line(error)})") from None


def _json_decoder(kind: Any, metadata: Any = None) -> Callable[[Any], Any] | None:
    """What reads the values of a type that holds JSON somewhere inside (extension arrow.json); None where
    none is."""
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
    """What a JSON cell holds. `datasets` writes a text such as 007, which it takes for JSON, as it is: that
    is text."""
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        return value
