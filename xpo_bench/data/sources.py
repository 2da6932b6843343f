"""Sources of raw rows: a local file, a name under `XPO_BENCH_DATA`, or a hub id.

The names in `__all__` are public: tasks of third parties may import them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from xpo_bench.contract.settings import DataSpec
from xpo_bench.data import hub
from xpo_bench.data.formats import Row
from xpo_bench.data.layouts import wanted
from xpo_bench.data.packages.catalogue import SETS
from xpo_bench.data.readers import COMPRESSED, READERS, NumberedRows, Reading, kind_of, rows_of
from xpo_bench.data.splits import WORDS
from xpo_bench.errors import DataError

__all__ = ["VARIABLE", "Loaded", "NumberedRows", "find", "first", "load", "read_file"]

VARIABLE = "XPO_BENCH_DATA"
"""Environment variable that names a directory searched for NAME.parquet, NAME.jsonl, ..."""
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


class Loaded(NamedTuple):
    """Raw rows, numbered from 1 (line numbers in .jsonl), their source, and the commit of a hub set."""

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
    source, also = spec.source, () if spec.split_by in WORDS else (spec.split_by,)
    if source in SETS:
        raise DataError(
            f"{source} is a set of choices, of which its task makes pairs: `--tasks {source}`, once "
            f"`xpo-bench data --fetch {source}` has brought it"
        )
    named = find(source)
    path = named or Path(source)
    if named or kind_of(path.name) or os.path.exists(path):
        loaded = Loaded(read_file(path, spec.rows, spec.columns, also), source)
    elif hub.ID.fullmatch(source):
        rows, revision = hub.load(source, spec.rows, spec.columns, also)
        loaded = Loaded(list(enumerate(rows, 1)), source, revision)
    else:
        raise DataError(f"no data set {source!r}: {_not_found()}")
    if not loaded.rows:
        raise DataError(f"{source}: empty data set; at least one row is needed")
    return loaded


def find(name: str) -> Path | None:
    """The file of a bare name under the directory that `XPO_BENCH_DATA` names, else in the cache of what was
    fetched, if there is one.
    """
    if not NAME.fullmatch(name):
        return None
    folder = os.environ.get(VARIABLE)
    folders = [Path(folder), cache()] if folder else [cache()]
    suffixes = [suffix + packed for packed in ("", *COMPRESSED) for suffix in READERS]
    paths = (place / (name + suffix) for place in folders for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def cache() -> Path:
    """Where fetched sets are kept when `XPO_BENCH_DATA` names no directory: the platform's place for them."""
    from platformdirs import user_cache_path

    return user_cache_path("xpo-bench", appauthor=False) / "data"


def read_file(
    path: Path,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> NumberedRows:
    """The rows of one file, of each value of its `split` column at most the first `limit`.

    Args:
        columns: of `--columns`, which a table is then read with. also: further columns that are read.

    Raises:
        DataError: the file is missing, unreadable, of another format, or malformed (with the line number).
    """
    if kind_of(path.name) is None:
        raise DataError(
            f"{path}: unknown kind of file; want {', '.join(READERS)}, "
            f"or one of them with {', '.join(COMPRESSED)}"
        )
    try:
        with path.open("rb") as file:
            reading = Reading(str(path), limit, partial(wanted, columns=columns, also=also))
            return list(first(rows_of(path.name, file, reading), limit))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {_not_found()}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or type(error).__name__}); want a readable file"
        ) from None


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


def _not_found() -> str:
    folder = os.environ.get(VARIABLE)
    under = "holds no such name" if folder else "is not set"
    files = ", ".join(READERS)
    return f"give a {files} file, a hub id OWNER/NAME[@REVISION], or a name under {VARIABLE} (which {under})"
