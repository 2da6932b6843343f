"""Content hashes: what can change the numbers of a cell is in its key."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from xpo_bench.checkpoints import locate
from xpo_bench.runner.source_files import module_digest


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no whitespace, no NaN or Infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object, length: int = 24) -> str:
    """Hex digits of blake2b over canonical JSON."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=32).hexdigest()[:length]


def _hash_files(paths: Iterable[Path], root: Path) -> str:
    h = hashlib.blake2b(digest_size=16)
    for path in sorted(
        paths
    ):  # NUL, which neither a path nor a source holds, keeps files from running together
        h.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()


@lru_cache(maxsize=1)
def host_source() -> str:
    """Hash of the host's sources that can change numbers: not those that print, compare or test."""
    # every module that training could reach, by exclusion: a new one counts until somebody decides otherwise.
    # A changed comment changes all keys too; a cell that is run again costs less than a wrong number that is
    # kept
    root = Path(__file__).resolve().parents[1]
    without = ("report", "compare", "cli", "testing", "statistics.py", "__init__.py")
    paths = [p for p in root.rglob("*.py") if p.relative_to(root).parts[0] not in without]
    return _hash_files(paths, root)


_SOURCES: dict[object, str] = {}


def source(thing: type | Callable[..., object]) -> str:
    """Hash of the source of a plugin class's module and of its bases' modules outside the host, or of a
    function's module.

    What was typed at a prompt has no file: its own source is hashed where it can be had, its name otherwise.
    """
    if thing in _SOURCES:
        return _SOURCES[thing]
    parts = []
    for part in thing.__mro__ if isinstance(thing, type) else (thing,):
        if part is object or part.__module__.startswith("xpo_bench."):
            continue  # the host's own are in `host_source`
        if named := module_digest(part.__module__):  # of what was loaded, whatever the file holds now
            parts.append(named)
            continue
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        if file and Path(file).is_file():
            parts.append(_hash_files([Path(file)], Path(file).parent))
            continue
        try:
            parts.append(inspect.getsource(part))
        except (OSError, TypeError):
            parts.append(f"{part.__module__}.{part.__qualname__}")
    _SOURCES[thing] = digest(parts)
    return _SOURCES[thing]


@lru_cache(maxsize=32)
def model_fingerprint(name: str) -> str | None:
    """Hash of the files of a local or packaged model (large ones by size and both ends), None for other
    names.
    """
    root = Path(locate(name).place)
    if not root.is_dir():
        return None
    h = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in root.iterdir() if p.is_file()):
        size = path.stat().st_size
        with path.open("rb") as file:
            content = file.read(1 << 26)  # weights of gigabytes would take minutes; both ends tell them apart
            if size > 1 << 26:
                file.seek(-(1 << 20), 2)
                content += file.read()
        h.update(f"{path.name}\0{size}\0".encode() + content)
    return h.hexdigest()
