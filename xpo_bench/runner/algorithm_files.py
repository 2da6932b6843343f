"""Algorithms of one file: `my_loss.py:RDPO` as a class, and what records say of where it is from."""

from __future__ import annotations

import os
import re
from types import ModuleType

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError, unknown
from xpo_bench.plugins import PluginInfo, Registry, check_class
from xpo_bench.runner.source_files import file_of, load

WORD = re.compile(r"(?P<path>.+\.py)(:(?P<name>.*))?")
DISTRIBUTION = "file"
"""What stands in records where the distribution of a plugin does."""


def is_file_word(word: object) -> bool:
    """Whether a word of `--algos` names a file: `my_loss.py`, `my_loss.py:RDPO`."""
    return isinstance(word, str) and WORD.fullmatch(word) is not None


def algorithm_of(word: str, option: str = "--algos") -> type[Algorithm]:
    """The class that `FILE.py:CLASS` names, or that is the only algorithm of `FILE.py`.

    Raises:
        UsageError: no such file or class, a file that cannot be imported, or no algorithm.
    """
    found = WORD.fullmatch(word)
    assert found is not None
    module, name = load(found["path"], option), found["name"]
    own = own_algorithms(module)
    if name is None:
        if len(own) != 1:
            raise UsageError(f"{option} {word}: {_which(found['path'], own)}")
        name = own[0].__name__
    cls = getattr(module, name, None)
    if cls is None:
        raise UsageError(f"{option} {word}: {unknown('class', name, [c.__name__ for c in own])}")
    if not (isinstance(cls, type) and issubclass(cls, Algorithm)):
        kind = "a class" if isinstance(cls, type) else f"of type {type(cls).__name__}"
        raise UsageError(f"{option} {word}: {name} is {kind} that does not extend xpo_bench.Algorithm")
    if cls.__module__ != module.__name__:
        raise UsageError(
            f"{option} {word}: {name} is imported there from {cls.__module__}; name the file that defines "
            "it, or the installed algorithm"
        )
    try:
        check_class(cls, "algorithm", "xpo_algorithms", Algorithm)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{option} {word}: {error}") from None
    return cls


def _which(path: str, own: list[type[Algorithm]]) -> str:
    if not own:
        return "it defines no algorithm: write a frozen dataclass that extends xpo_bench.Algorithm"
    names = ", ".join(cls.__name__ for cls in own)
    return f"it defines {len(own)} algorithms ({names}); say which, such as {path}:{own[0].__name__}"


def own_algorithms(module: ModuleType) -> list[type[Algorithm]]:
    """The algorithms that a module defines itself, those with a name."""
    return [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type)
        and issubclass(cls, Algorithm)
        and cls.__module__ == module.__name__
        and isinstance(getattr(cls, "name", None), str)
    ]


def shown(cls: type) -> str | None:
    """`my_loss.py:RDPO`, as a command takes it; None of a class that no file was named for."""
    file = file_of(cls)
    return f"{file.shown}:{cls.__qualname__}" if file else None


def info_of(cls: type[Algorithm], registry: Registry) -> PluginInfo | None:
    """Where a class of a file is from, as records say it; None of other classes.

    Raises:
        UsageError: its name is that of an installed algorithm, whose records could not be told from its own.
    """
    file = file_of(cls)
    if file is None:
        return None
    if cls.name in registry.algorithms:
        other = registry.algorithms[cls.name][1]
        raise UsageError(
            f"--algos {shown(cls)}: the name {cls.name!r} is that of an installed algorithm (plugin "
            f"{other.name}, {other.origin}); give the class another name, or leave that out by "
            f"--disable {other.name}"
        )
    # the version is no hash: records of one configuration are one row, whose latest source counts
    return PluginInfo(os.path.basename(file.path), DISTRIBUTION, "0", file.module)
