"""Whose fault an exception is, in the line that a record keeps of it.

A plugin is named where its own code was running, or where the suite says what is wrong with what the plugin
returned. Anything else comes with the line that raised it: a model that cannot do something, or the suite
itself.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import CapacityError
from xpo_bench.runner.plan import Cell

FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)


def described(cell: Cell, error: BaseException, *, ended: bool = False) -> str:
    """One line about what ended a cell.

    Args:
        ended: the process or the clock ended it, which says nothing of who is at fault: the plugin that ran
            is named.
    """
    first = str(error).splitlines()[0] if str(error) else "no message"
    if isinstance(error, KeyError):  # whose text is the bare key
        first = f"KeyError: {first}"
    frames = FRAME.findall("".join(traceback.format_exception(error)))
    if (
        ended
        or _is_about(cell.algorithm, error, first)
        or _passes_through(cell.algorithm, [file for file, _ in frames])
    ):
        return f"plugin {cell.info.name} ({cell.info.origin}): {first}"
    kind = "" if first.startswith(type(error).__name__) else f"{type(error).__name__}: "
    own = [
        (Path(file).name, line)
        for file, line in frames
        if Path(file).is_relative_to(Path(__file__).parents[2])
    ]
    where = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    return f"xpo-bench{where} with model {cell.setup.model.name}: {kind}{first}"


def _is_about(algorithm: Algorithm, error: BaseException, first: str) -> bool:
    """Whether the suite raised it to say what is wrong with the algorithm."""
    named = (f"{algorithm.name}: ", f"{type(algorithm).__name__} ", f"{type(algorithm).__name__}: ")
    return isinstance(error, CapacityError) or first.startswith(named)


def _passes_through(algorithm: Algorithm, files: list[str]) -> bool:
    """Whether a traceback holds a line of the algorithm's own code."""
    places = list(_places(algorithm))
    return any(Path(file) == place or place in Path(file).parents for file in files for place in places)


def _places(algorithm: Algorithm) -> Iterator[Path]:
    """Files and packages that an algorithm's classes are written in, the contract's own excepted."""
    for kind in type(algorithm).__mro__:
        if kind is Algorithm or not issubclass(kind, Algorithm):
            continue
        name = kind.__module__.partition(".")[0]
        if not name.startswith("xpo_bench"):  # in the suite's own packages, algorithms lie beside much else
            yield from map(Path, getattr(sys.modules.get(name), "__path__", ()))
        for part in vars(kind).values():
            code = getattr(getattr(part, "__func__", part), "__code__", None)
            if code is not None and not code.co_filename.startswith("<string>"):  # what dataclasses write
                yield Path(code.co_filename)
