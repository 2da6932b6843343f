"""One table of the records of a run directory, kept beside them so that a large run is read in seconds.

The records stay the truth. A row is used as long as its file has the length and the times that it had when
the row was made; every other record is read from its file, and a table that lacks many of them is made again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from xpo_bench.runner.columns import reals, texts, wholes

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "records.arrow"
FORMAT = b"1"
"""Of the table; one of another format is made again."""
LEAST = 1000
"""Records from which on a table is kept: fewer are read as fast without."""
STALE = 0.01
"""Fraction of the records that may be missing from a table before it is made again."""
YOUNG_NS = 2_000_000_000
"""A file that changed this recently may change again within one tick of its clock: FAT has one of 2 s."""
STAMP = ("size", "mtime_ns", "ctime_ns")
PART, METRIC, ODD = "part.", "metric.", "odd metrics"
"""Names of columns: of a part of records as JSON, of a metric, and of metrics that are no real numbers."""
ABSENT = object()
CHECK = 16
"""Bytes of the digest behind the table, an Arrow stream, whose readers stop before it."""
LARGEST = 1 << 31
"""Bytes of all records from which on no table is kept: Arrow's texts have offsets of 32 bits."""


class Stamp(NamedTuple):
    """What of a file changes whenever its content does."""

    size: int
    mtime_ns: int
    ctime_ns: int

    def young(self, now_ns: int) -> bool:
        """Whether the file may change again without changing its stamp."""
        return max(self.mtime_ns, self.ctime_ns) + YOUNG_NS > now_ns


Records = Mapping[str, dict[str, Any]]
"""Key -> record, as its file has it."""


def stamps_in(folder: Path) -> dict[str, Stamp]:
    """Name -> stamp of every JSON file of a directory; one that fits none where it cannot be looked at."""
    out = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                try:
                    found = entry.stat()
                    out[entry.name[:-5]] = Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                except OSError:
                    out[entry.name[:-5]] = Stamp(-1, -1, -1)
    return out


# --------------------------------------------------------------------------- reading


def read(path: Path, stamps: Mapping[str, Stamp]) -> Records:
    """The records whose files have not changed since the table was made; none without a sound table.

    Parts that records have in common, such as their environment, are one object in all of them.
    """
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            content = file.read()
        stream = memoryview(content)[:-CHECK]
        if _digest(stream) != content[-CHECK:]:
            return {}
        with pa.ipc.open_stream(stream) as reader:
            if (reader.schema.metadata or {}).get(b"xpo-bench") != FORMAT:
                return {}
            table = reader.read_all()
    except (OSError, ValueError):
        return {}
    keys = table["key"].to_pylist()
    made = zip(*(table[name].to_pylist() for name in STAMP), strict=True)
    sound = [stamps.get(key) == stamp for key, stamp in zip(keys, made, strict=True)]
    return {key: record for key, record, same in zip(keys, _records(table), sound, strict=True) if same}


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECK).digest()


def _records(table: pa.Table) -> list[dict[str, Any]]:
    parts = {
        name.removeprefix(PART): _parts(table[name]) for name in table.column_names if name.startswith(PART)
    }
    parts["metrics"] = _metrics(table, parts["metrics"])
    whole = {name: column for name, column in parts.items() if ABSENT not in column}
    out = [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    for name in parts.keys() - whole.keys():
        for record, part in zip(out, parts[name], strict=True):
            if part is not ABSENT:
                record[name] = part
    return out


def _parts(column: pa.ChunkedArray) -> list[Any]:
    """What is in a column of JSON, each distinct text read once."""
    out: list[Any] = []
    for chunk in column.chunks:
        distinct = [
            from_json(text, allow_inf_nan=False) if text else ABSENT for text in chunk.dictionary.to_pylist()
        ]
        out += map(distinct.__getitem__, chunk.indices.to_numpy().tolist())
    return out


def _metrics(table: pa.Table, names: Sequence[list[str]]) -> list[dict[str, Any]]:
    """The metrics of every row, from the names that it has and the columns of their values."""
    columns = {
        name.removeprefix(METRIC): table[name].to_numpy()  # null is NaN, which no record holds
        for name in table.column_names
        if name.startswith(METRIC)
    }
    rows: dict[int, list[int]] = {}  # one list of names is one object: see _parts
    for row, own in enumerate(names):
        rows.setdefault(id(own), []).append(row)
    out: list[dict[str, Any]] = [{}] * len(names)
    for some in rows.values():
        own = names[some[0]]
        values = np.column_stack([columns[name][some] for name in own]) if own else np.empty((len(some), 0))
        for row, numbers in zip(some, values.tolist(), strict=True):
            out[row] = dict(zip(own, numbers, strict=True))
        for i, j in np.argwhere(np.isnan(values)).tolist():
            out[some[i]][own[j]] = None
    for metrics, odd in zip(out, _parts(table[ODD]), strict=True):
        metrics.update(odd)
    return out


# --------------------------------------------------------------------------- writing


def write(records: Records, stamps: Mapping[str, Stamp], now_ns: int) -> bytes:
    """The table as the content of a file; empty where too few records are old enough, or they are too large.

    Args:
        stamps: as they were before the records were read. now_ns: when that was.
    """
    import pyarrow as pa

    kept = {
        key: record
        for key, record in records.items()
        if not stamps[key].young(now_ns) and isinstance(record.get("metrics"), dict)
    }
    if len(kept) < LEAST or sum(stamps[key].size for key in kept) >= LARGEST:
        return b""
    every = np.ones(len(kept), bool)
    columns = {"key": texts(list(kept))}
    for name, values in zip(STAMP, zip(*(stamps[key] for key in kept), strict=True), strict=True):
        columns[name] = wholes(np.array(values, np.int64), every)
    rows = list(kept.values())
    for name in sorted({name for record in rows for name in record} - {"metrics"}):
        columns[PART + name] = _spelt([record.get(name, ABSENT) for record in rows])
    columns |= _metric_columns([record["metrics"] for record in rows])
    table = pa.table(columns).replace_schema_metadata({b"xpo-bench": FORMAT})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = bytes(sink.getvalue().to_pybytes())
    return content + _digest(content)


def _spelt(parts: Sequence[object]) -> pa.Array:
    """The parts as JSON, each distinct text once and each distinct object spelt once."""
    import pyarrow as pa

    places: dict[str, int] = {}
    of_part: dict[int, int] = {}
    for part in parts:
        if id(part) not in of_part:
            text = "" if part is ABSENT else to_json(part).decode()
            of_part[id(part)] = places.setdefault(text, len(places))
    indices = wholes(np.array([of_part[id(part)] for part in parts]), np.ones(len(parts), bool))
    return pa.DictionaryArray.from_arrays(indices, texts(list(places)))


def _metric_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """A column per metric, the names of each row, and what is neither a real number nor null."""
    place = {name: i for i, name in enumerate(sorted({name for row in rows for name in row}))}
    values: NDArray[np.float64] = np.full((len(rows), len(place)), np.nan)
    spelt: dict[tuple[str, ...], list[str]] = {}
    nothing: dict[str, Any] = {}
    names, odd = [], []
    for i, row in enumerate(rows):
        own = tuple(row)
        names.append(spelt.setdefault(own, list(own)))
        unreal = {name: v for name, v in row.items() if v is not None and type(v) is not float}
        odd.append(unreal or nothing)
        values[i, [place[name] for name in own]] = [
            None if name in unreal else value for name, value in row.items()
        ]
    columns = {METRIC + name: reals(values[:, i], ~np.isnan(values[:, i])) for name, i in place.items()}
    return columns | {PART + "metrics": _spelt(names), ODD: _spelt(odd)}
