"""What the algorithms of a run are, and how to compute their cells again, for a report's page."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.plugins import Registry
from xpo_bench.report.format import ABSENT
from xpo_bench.report.records import Record
from xpo_bench.report.reproduce import command
from xpo_bench.report.runs import group
from xpo_bench.runner.settings import docs, dump


@dataclass(frozen=True)
class AlgorithmReference:
    """One algorithm: what it is and how to compute its cells again.

    Args:
        about: its docstring, with the equation. fields: (hyperparameter, default, meaning).
        cells: (row and task, (record, command) of every seed).
    """

    name: str
    about: str
    source: str
    origin: str
    fields: Sequence[tuple[str, str, str]]
    cells: Sequence[tuple[str, Sequence[tuple[Record, str]]]]


def reference(records: Sequence[Record], registry: Registry) -> list[AlgorithmReference]:
    """Every algorithm of the records, by name; cells that were trials of a search are left out."""
    mine: dict[str, list[tuple[str, Sequence[tuple[Record, str]]]]] = {}
    first: dict[str, Record] = {}
    for g in group(r for r in records if r.role != "trial"):
        name = g.records[0].algorithm.name
        first.setdefault(name, g.records[0])
        cells = [(r, command(r, registry)) for r in g.records]
        mine.setdefault(name, []).append((f"{g.label} on {g.task}", cells))
    return [_reference(first[name], registry, mine[name]) for name in sorted(mine)]


def _reference(
    record: Record, registry: Registry, cells: Sequence[tuple[str, Sequence[tuple[Record, str]]]]
) -> AlgorithmReference:
    a = record.algorithm
    origin = f"plugin {a.plugin} of {a.distribution} {a.version}"
    if a.file:
        return AlgorithmReference(a.name, "", "", f"{a.file} (hash {a.source})", [], cells)
    if a.name not in registry.algorithms:
        origin += "; not installed where this page was made, so that its equation is missing"
        return AlgorithmReference(a.name, "", "", origin, [], cells)
    cls, info = registry.algorithms[a.name]
    if info.version != a.version:
        origin += f"; what is told here is of version {info.version}"
    return AlgorithmReference(a.name, _about(cls), cls.source, origin, _fields(cls), cells)


def _about(cls: type[Algorithm]) -> str:
    """The docstring of a class or, where it has none, of its module."""
    module = sys.modules.get(cls.__module__)
    for text in (cls.__dict__.get("__doc__"), module.__doc__ if module else None):
        # a dataclass without a docstring gets its signature as one
        if text and not text.startswith(f"{cls.__name__}("):
            return inspect.cleandoc(text)
    return ""


def _fields(cls: type[Algorithm]) -> list[tuple[str, str, str]]:
    try:
        defaults: Mapping[str, object] = dump(cls())
    except TypeError:  # a field without a default
        defaults = {}
    return [(name, str(defaults.get(name, ABSENT)), text) for name, text in docs(cls).items()]
