"""Readers of single files: .parquet, .jsonl, .json, .csv and .tsv, also compressed, local or on a hub.

A reader turns one open binary file into numbered rows of raw columns. Texts stay the texts that the file
holds: no reader guesses types, so that `None`, `NA`, `007` and dates are what they were.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import PurePath
from typing import IO, Any

from xpo_bench.data.json_files import json_rows, jsonl
from xpo_bench.data.reading import Numbered, NumberedRows, Reading, first_line
from xpo_bench.data.tables import csv, parquet, tsv
from xpo_bench.errors import DataError

__all__ = ["COMPRESSED", "READERS", "Numbered", "NumberedRows", "Reading", "first_line", "kind_of", "rows_of"]

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Suffix of a packed file -> how pyarrow calls the compression."""
READERS: dict[str, Callable[[IO[bytes], Reading], Numbered]] = {
    ".parquet": parquet,
    ".jsonl": jsonl,
    ".json": json_rows,
    ".csv": csv,
    ".tsv": tsv,
}


def kind_of(name: str) -> tuple[str, str | None] | None:
    """The suffix of a file that can be read and its compression; None for other files."""
    path = PurePath(str(name).lower())
    compression = COMPRESSED.get(path.suffix)
    suffix = (path.with_suffix("") if compression else path).suffix
    return (suffix, compression) if suffix in READERS else None


def rows_of(name: str, file: IO[bytes], reading: Reading) -> Numbered:
    """The rows of an open file, by the suffix of its name.

    Raises:
        DataError: an unknown suffix, or a malformed file (with the line number).
        UnicodeDecodeError, OSError: the bytes cannot be had or are no text.
    """
    kind = kind_of(name)
    if kind is None:
        raise DataError(
            f"{reading.where}: unknown kind of file; want {', '.join(READERS)}, "
            f"or one of them with {', '.join(COMPRESSED)}"
        )
    suffix, compression = kind
    if compression is None:
        return READERS[suffix](file, reading)
    import pyarrow as pa

    return _unpacked(
        READERS[suffix], pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression), reading
    )


def _unpacked(reader: Callable[[IO[bytes], Reading], Numbered], stream: Any, reading: Reading) -> Numbered:
    try:
        # a table's end has to be looked at first
        yield from reader(
            io.BytesIO(stream.read()) if reader is parquet else io.BufferedReader(stream), reading
        )
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"{reading.where}: cannot be unpacked ({first_line(error)}); compress it again"
        ) from None
