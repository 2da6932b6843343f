"""Atomic records: a reader sees a whole file or none, and the cell's JSON is its commit mark."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from xpo_bench.errors import StoreError, UsageError
from xpo_bench.metrics.names import current
from xpo_bench.runner import record_table
from xpo_bench.runner.columns import reals, wholes
from xpo_bench.runner.item_file import item_parquet
from xpo_bench.runner.keys import canonical
from xpo_bench.runner.record import SCHEMA as SCHEMA
from xpo_bench.runner.record import Record
from xpo_bench.runner.run_document import RunDocument
from xpo_bench.train.items import Items

DONE = ("ok", "diverged")
SIZE_LIMIT = 1 << 26
"""Bytes of a record at most; 4,096 entries of a final policy take a tenth of it."""
KEY = re.compile(r"[0-9a-f]{24}")


def write_atomic(path: Path, content: bytes) -> None:
    """Write under a temporary name, fsync, rename, fsync the directory."""
    # os.replace is atomic within a directory, so a reader sees the old file or the new one; the file is
    # synced before, or a crash could leave the new name with an empty file, and the directory after, or the
    # rename itself could be lost. The name begins with a dot and holds the pid: no reader takes it for a
    # record, and two writers never share one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def finite(value: object) -> object:
    """The value with every NaN and infinity replaced by None, for canonical JSON."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float):
        # x − x is 0 for finite x and NaN for NaN and ±∞: one subtraction tells all three
        return value if value - value == 0.0 else None
    return value


class Store:
    """One run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: dict[Path, str] = {}
        """Files that have the name of a record and are none, and why; known once they have been looked at."""

    def prepare(self) -> None:
        """Create the directories; UsageError when they cannot be written."""
        try:
            for name in ("cells", "curves", "items"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            # permission bits do not tell of read-only mounts or full quotas: writing does
            probe = self.root / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"--out {self.root}: cannot be written ({error.strerror}); name a writable directory"
            ) from None

    @classmethod
    def existing(cls, root: Path) -> Store:
        """A run directory that is there; UsageError otherwise."""
        if not (root / "cells").is_dir():
            raise UsageError(
                f"{root}: not a run directory (no cells/ in it); `xpo-bench run` prints where it wrote"
            )
        return cls(root)

    def write_run(self, document: RunDocument) -> None:
        self._write(self.root / "run.json", canonical(finite(document)).encode())

    def read_run(self) -> RunDocument:
        """run.json, or an empty dictionary where it is missing or unreadable: records do without it."""
        try:
            loaded = json.loads((self.root / "run.json").read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(loaded, dict):
            return {}
        if "plan" in loaded:
            loaded["plan"] = [cell for cell in loaded["plan"] if isinstance(cell, dict) and "key" in cell]
        return cast(RunDocument, loaded)

    def write_cell(
        self,
        record: Record,
        curve: Sequence[Mapping[str, float | None]],
        items: Items | None = None,
    ) -> None:
        """Curve and items first, record last: the record commits the cell."""
        self._commit(
            record, parquet(curve) if curve else b"", item_parquet(items) if items is not None else b""
        )

    def copy_cell(self, source: Store, key: str, record: Record) -> None:
        """Take a cell from another run directory: its curve and items as they are, then its record."""
        self._commit(record, *(source._parquet(folder, key) for folder in ("curves", "items")))

    def _commit(self, record: Record, curve: bytes, items: bytes) -> None:
        key = record["key"]
        if curve:
            self._write(self.root / "curves" / f"{key}.parquet", curve)
        path = self.root / "items" / f"{key}.parquet"
        if items:
            path.parent.mkdir(exist_ok=True)  # a directory of an earlier version has none
            self._write(path, items)
        else:  # those of an earlier run of the cell are no evidence of this one
            path.unlink(missing_ok=True)
        self._write(self.root / "cells" / f"{key}.json", canonical(finite(record)).encode())

    def _parquet(self, folder: str, key: str) -> bytes:
        try:
            return (self.root / folder / f"{key}.parquet").read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomic(path, content)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be written ({error.strerror or error}); finished cells are kept, "
                "the same command resumes"
            ) from error

    def read_cell(self, key: str) -> Record | None:
        """The record of a key, or None when there is no intact one of this schema."""
        return self._read(self.root / "cells" / f"{key}.json")

    def records(self) -> list[Record]:
        """Every intact record of the run directory, in the order of the keys.

        Those of a large run come from the table that is kept beside them, and may then share parts.
        """
        collecting = gc.isenabled()
        gc.disable()  # nothing that is read here is garbage, and looking for it would take half of the time
        try:
            return self._records()
        finally:
            if collecting:
                gc.enable()

    def _records(self) -> list[Record]:
        folder, path, now = self.root / "cells", self.root / record_table.NAME, time.time_ns()
        stamps = record_table.stamps_in(folder)  # before anything is read: a file that changes then is stale
        keys = sorted(filter(KEY.fullmatch, stamps))
        known = record_table.read(path, stamps) if len(keys) >= record_table.LEAST else {}
        out: dict[str, dict[str, Any]] = {}
        stale = 0
        for key in keys:
            stored = known.get(key)
            if stored is None and (stored := self._stored(f"{folder}{os.sep}{key}.json")) is not None:
                stale += 1
            if stored is not None:
                out[key] = stored
        if len(keys) >= record_table.LEAST and stale > record_table.STALE * len(keys):
            self._keep(record_table.write(out, stamps, now))
        return [_today(record) for record in out.values()]

    def _keep(self, table: bytes) -> None:
        """Keep a table of the records beside them, where that can be written: it only saves time."""
        with contextlib.suppress(OSError):
            if table:
                write_atomic(self.root / record_table.NAME, table)

    def _read(self, path: str | Path) -> Record | None:
        record = self._stored(path)
        return None if record is None else _today(record)

    def _stored(self, path: str | Path) -> dict[str, Any] | None:
        """A record as its file has it, or None where that holds no intact one of this schema."""
        try:
            with open(path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size > SIZE_LIMIT:
                    self.damaged[Path(path)] = f"larger than {SIZE_LIMIT >> 20} MiB"
                    return None
                record: dict[str, Any] = from_json(file.readall(), allow_inf_nan=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.damaged[Path(path)] = getattr(error, "strerror", None) or "incomplete or corrupt"
            return None
        reason = _fault(record, os.path.basename(path)[:-5])
        if reason:
            self.damaged[Path(path)] = reason
            return None
        return record

    def set_aside(self) -> list[tuple[Path, str]]:
        """Rename the damaged files that have been looked at, so that they are computed again; their new
        names, and why.
        """
        out = []
        for path, reason in self.damaged.items():
            aside = path.with_name(f"{path.name}.damaged")
            try:
                os.replace(path, aside)
            except OSError as error:
                raise StoreError(f"{path}: {reason}, and cannot be set aside ({error.strerror})") from error
            out.append((aside, reason))
        self.damaged = {}
        return out

    def done(self, key: str) -> bool:
        """Whether the key's cell needs no further run."""
        record = self.read_cell(key)
        return record is not None and record["status"] in DONE


def parquet(rows: Sequence[Mapping[str, float | None]]) -> bytes:
    """Curve rows as parquet bytes: `step` as integer, every other column as double, absent values null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(name: str) -> pa.Array:
        values = np.array([row.get(name) for row in rows], dtype=np.float64)  # None is NaN
        return reals(values, np.isfinite(values))

    names = sorted({name for row in rows for name in row} - {"step"})
    steps = np.array([int(cast(float, row["step"])) for row in rows])
    columns = {"step": wholes(steps, np.ones(len(rows), bool))}
    columns |= {name: column(name) for name in names}
    sink = pa.BufferOutputStream()
    # real numbers that differ gain nothing from dictionaries, and nobody asks for the bounds of a column
    pq.write_table(pa.table(columns), sink, use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def _today(record: dict[str, Any]) -> Record:
    """The record with the metrics of earlier versions under the names that they have now."""
    if isinstance(record.get("metrics"), dict):
        record["metrics"] = current(record["metrics"])
    return cast(Record, record)


def _fault(record: object, key: str) -> str | None:
    """Why a document is not the record of a key, or None."""
    if not isinstance(record, dict) or "schema" not in record:
        return "no record"
    if record["schema"] != SCHEMA:
        newer = isinstance(record["schema"], int) and record["schema"] > SCHEMA
        return f"of schema {record['schema']!r}, {'newer than' if newer else 'not'} {SCHEMA}"
    if record.get("key") != key:
        return f"the record of another key, {str(record.get('key'))[:32]!r}"
    return None if "status" in record else "a record without a status"
