"""The metrics of the suite by name, and what records define of those of plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from xpo_bench.contract.metric import Better, Definition, Kind, Metric, metric_of

METRICS: dict[str, Metric] = {}


def take(modules: Iterable[ModuleType]) -> None:
    """Enter the metrics that modules define.

    Raises:
        TypeError: two have one name.
    """
    for module in modules:
        for function in vars(module).values():
            found = metric_of(function)
            if found is None or function.__module__ != module.__name__:
                continue
            if found.name in METRICS:
                raise TypeError(f"metric {found.name!r}: the name is taken")
            METRICS[found.name] = found


Definitions: TypeAlias = Mapping[str, Definition]
"""Metrics of plugins by name, as a plan or records have them: how to print and compare them, no more."""

LEARNED: dict[str, Definition] = {}
"""Those that were handed to `learn`, which `find` reads where no definitions are passed to it."""


def learn(definitions: Iterable[Definition]) -> None:
    """Remember what the metrics of plugins are; those of the suite stay what they are."""
    LEARNED.update((found.name, found) for found in definitions if found.name not in METRICS)


def learn_from(records: Iterable[Mapping[str, Any]]) -> None:
    """Remember the metrics of plugins that records define, to print and compare them without the plugin."""
    for record in records:
        learn(defined_in(record).values())


def defined_in(record: Mapping[str, object]) -> dict[str, Definition]:
    """The metrics of plugins that a record defines, by name; what is no definition is passed over."""
    found = record.get("metric_definitions")
    out: dict[str, Definition] = {}
    for name, entry in found.items() if isinstance(found, dict) else ():
        if isinstance(entry, dict) and entry.get("better") in ("higher", "lower", None):
            unit, doc = str(entry.get("unit", "")), str(entry.get("definition", ""))
            out[str(name)] = Definition(str(name), unit, entry.get("better"), doc)
    return out


def find(name: str, third_party: Definitions | None = None) -> Definition | None:
    """The metric of a column; `heldout_x` is x on held-out pairs.

    Args:
        third_party: the metrics of plugins that the records at hand define. The suite's own come first.
    """
    plain = name.removeprefix("heldout_")
    if plain in METRICS:
        return METRICS[plain] if reported(plain) else None
    return (LEARNED if third_party is None else third_party).get(plain)


def better(name: str, third_party: Definitions | None = None) -> Better | None:
    """`higher`, `lower` or None, of a metric or of its held-out twin; see `find`."""
    found = find(name, third_party)
    return found.better if found else None


def reported(name: str) -> bool:
    """Whether the suite itself has a metric of that name, which is reported under it."""
    found = METRICS.get(name)
    return found is not None and found.kind in ("point", "curve", "run")


def describe() -> list[dict[str, str | None]]:
    """Name, unit, direction and definition of every metric that the suite reports, by name."""
    return [row_of(METRICS[name]) for name in sorted(METRICS) if reported(name)]


def row_of(m: Definition) -> dict[str, str | None]:
    """A metric as a row of a list."""
    return {"name": m.name, "unit": m.unit, "better": m.better, "definition": m.doc}


def of_kind(kind: Kind) -> list[Metric]:
    """The suite's metrics of one kind, in the order of their definition."""
    return [m for m in METRICS.values() if m.kind == kind]
