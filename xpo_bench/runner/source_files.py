"""Modules made of files that a command names: the text that was read, with its hash, and what it imports.

A module has a name that nothing can import, so that a file which has changed meanwhile is another module, and
other processes are sent the text that this one has.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from xpo_bench.errors import UsageError

HOST = ("xpo_bench", "xpo_bench_plugins")
"""Packages whose sources are in keys already, wherever they lie."""


@dataclass(frozen=True)
class SourceFile:
    """A file of algorithms as it was read.

    Args:
        module: its name in `sys.modules`. shown: the file as the user wrote it. path: from the root.
        beside: the files of its folder that it imports, with their hashes.
    """

    module: str
    shown: str
    path: str
    text: str
    beside: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Hash of its text and of what it imports from its folder: where that lies does not matter."""
        folder = os.path.dirname(self.path)
        parts = [("", self.text), *((os.path.relpath(path, folder), found) for path, found in self.beside)]
        return _digest("\0".join(part for pair in parts for part in pair))


_MODULES: dict[str, SourceFile] = {}
"""Name of a module -> its file, of all that this process has loaded."""
_LATEST: dict[str, SourceFile] = {}
"""Path -> the file as it was loaded last."""


def load(path: str, option: str) -> ModuleType:
    """The module of a file, made anew where its text, or what it imports from its folder, has changed.

    Raises:
        UsageError: there is no such file, or it cannot be imported; with the line where there is one.
    """
    place = os.path.abspath(os.path.expanduser(path))
    try:
        text = Path(place).read_text("utf-8")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = (
            f"there is no such file in {os.getcwd()}" if missing else f"cannot be read ({error.strerror})"
        )
        raise UsageError(f"{option} {path}: {reason}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {path}: not UTF-8 text (byte {error.start})") from None
    _first(os.path.dirname(place))
    try:
        found = sorted(_beside(place, text, Path(place).parent, {os.path.realpath(place)}))
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{option} {path}: cannot be imported: {line_of(error, place)}") from None
    beside = tuple((other, _digest_of(other) or "") for other in found if other != os.path.realpath(place))
    stem = re.sub(r"\W", "_", Path(place).stem)
    file = SourceFile(stem, path, place, text, beside)
    file = replace(file, module=f"{stem}@{file.digest[:12]}")
    known = _LATEST.get(place)
    if known and known.module == file.module and known.module in sys.modules:
        return sys.modules[known.module]
    try:
        return _execute(file)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option} {path}: cannot be imported: {line_of(error, place)}") from error


def file_of(cls: type) -> SourceFile | None:
    """The file that a class was loaded from, None of a class of a module that is imported."""
    return _MODULES.get(cls.__module__)


def module_digest(module: str) -> str | None:
    """The hash of a module that was loaded from a file; None of others."""
    return _MODULES[module].digest if module in _MODULES else None


def needed(classes: Iterable[type]) -> list[SourceFile]:
    """The files that another process has to have before it is sent these classes."""
    found = (file_of(part) for cls in dict.fromkeys(classes) for part in cls.__mro__)
    return list(dict.fromkeys(file for file in found if file))


def take(files: Iterable[SourceFile]) -> None:
    """Make the modules of files that another process has loaded.

    Raises:
        UsageError: they cannot be imported here, or what they import beside them is not what it was there.
    """
    for file in files:
        if file.module in sys.modules:
            continue
        changed = [path for path, digest in file.beside if _digest_of(path) != digest]
        if changed:
            raise UsageError(
                f"{file.shown}: imports {changed[0]}, which is not here as it was when the run was planned"
            )
        try:
            _execute(file)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{file.shown}: cannot be imported: {line_of(error, file.path)}") from error


def _execute(file: SourceFile) -> ModuleType:
    _first(os.path.dirname(file.path))
    _forget({path for known in (file, *_MODULES.values()) for path, _ in known.beside})
    module = ModuleType(file.module)
    module.__file__ = file.path
    sys.modules[file.module] = module  # where dataclasses look their annotations up
    _MODULES[file.module] = file
    try:
        exec(compile(file.text, file.path, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[file.module], _MODULES[file.module]
        raise
    _LATEST[file.path] = file
    return module


_FOLDERS: list[str] = []
"""Folders of files at the end of the module path."""


def _first(folder: str) -> None:
    """Modules of a folder can be imported: before those of other files' folders, behind everybody else's."""
    for known in _FOLDERS:
        sys.path.remove(known)
    if folder in _FOLDERS:
        _FOLDERS.remove(folder)
    if folder not in sys.path and os.path.isdir(folder):
        _FOLDERS.insert(0, folder)
    sys.path += _FOLDERS
    importlib.invalidate_caches()


def _forget(paths: set[str]) -> None:
    """Modules of these files are imported again: what this process has of them may be older than the hash."""
    for name, module in list(sys.modules.items()):
        if name not in _MODULES and os.path.realpath(getattr(module, "__file__", None) or "") in paths:
            del sys.modules[name]


def _beside(path: str, text: str, folder: Path, seen: set[str]) -> set[str]:
    """The files of a folder that a text imports, directly or by others of them; `seen` with them in it."""
    for name in _imported(path, text):
        if name not in HOST:
            for other in _files(name, folder) - seen:
                seen.add(other)
                _beside(other, Path(other).read_text("utf-8", errors="replace"), folder, seen)
    return seen


def _imported(path: str, text: str) -> Iterator[str]:
    """The first names of the modules that a text imports, also within functions."""
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files(name: str, folder: Path) -> set[str]:
    """The files of a module or package, where it lies in the folder itself."""
    # by the module path alone: what this process has by that name may be another folder's
    spec = PathFinder.find_spec(name)
    if spec is None:
        return set()
    packages = [Path(place) for place in spec.submodule_search_locations or ()]
    places = packages or ([Path(spec.origin)] if spec.origin else [])
    # what lies deeper, in a virtual environment say, is found by another entry of the module path
    own = [place for place in places if place.resolve().parent == folder.resolve()]
    found = (file for place in own for file in (place.rglob("*.py") if packages else (place,)))
    return {os.path.realpath(file) for file in found if file.is_file()}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _digest_of(path: str) -> str | None:
    """The hash of a file, None where it cannot be read."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def line_of(error: BaseException, path: str = "") -> str:
    """An exception as one line, with the line of the file that it comes from."""
    text = " ".join(str(error).split()) or "no message"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError):
        where = "" if error.filename == path else f"{error.filename}, "
        text = f"{error.msg} ({where}line {error.lineno})"
    elif lines:
        text = f"{text} (line {lines[-1]})"
    return f"{type(error).__name__}: {text}"
