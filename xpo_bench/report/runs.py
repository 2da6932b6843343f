"""Records gathered over seeds: the groups that every table is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from xpo_bench.statistics import Estimate, estimate

Record = Mapping[str, Any]
COUNTED = ("ok", "diverged")
"""Statuses whose metrics count; those of a run that diverged are of its last finite evaluation."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """The seeds of one algorithm x config x task x experiment; equal only to itself.

    `label` is the algorithm with whatever was swept; `task` the task with whatever of its settings was, and
    the experiment.
    """

    label: str
    task: str
    records: tuple[Record, ...]

    @cached_property
    def counted(self) -> tuple[Record, ...]:
        """Records whose metrics count."""
        return tuple(r for r in self.records if r["status"] in COUNTED)

    @cached_property
    def status(self) -> dict[str, int]:
        """How many records there are of each status."""
        return dict(Counter(str(r["status"]) for r in self.records))

    @cached_property
    def shares_a_clock(self) -> bool:
        """Whether some run trained as one computation with others."""
        return any((r.get("timing") or {}).get("vectorised_runs", 1) > 1 for r in self.records)

    @property
    def names(self) -> list[str]:
        """Every metric that some counted record has."""
        return list(self._columns)

    def values(self, name: str) -> Mapping[int, float | None]:
        """seed -> value, of the counted records that have the metric."""
        return self._columns.get(name, {})

    def known(self, name: str) -> bool:
        """Whether some run has a value of the metric."""
        return any(v is not None for v in self._columns.get(name, {}).values())

    def estimate(self, name: str) -> Estimate | None:
        """Mean and interval of a metric over seeds."""
        if name not in self._estimates:
            self._estimates[name] = estimate(self.values(name).values())
        return self._estimates[name]

    @cached_property
    def _columns(self) -> dict[str, dict[int, float | None]]:
        """metric -> seed -> value; records are gone through once, since of many each costs the memory a
        visit.
        """
        out: dict[str, dict[int, float | None]] = {}
        for r in self.counted:
            seed = r["seed"]
            for name, value in r["metrics"].items():
                out.setdefault(name, {})[seed] = value
        return out

    @cached_property
    def _estimates(self) -> dict[str, Estimate | None]:
        return {}


def group(records: Sequence[Record]) -> list[SeedGroup]:
    """Records gathered over seeds, sorted by task, then algorithm, then configuration."""
    members: dict[str, list[Record]] = {}
    spelt: dict[bytes, str] = {}  # canonical JSON takes its time, and seeds are spelt alike
    for record in records:
        identity = identity_of(record)
        text = to_json(identity)
        if text not in spelt:
            spelt[text] = canonical(identity)
        members.setdefault(spelt[text], []).append(record)
    groups = list(members.values())
    labels = _labels([g[0] for g in groups])
    tasks = _task_labels([g[0] for g in groups])
    found = [
        (_order(g[0]), SeedGroup(label, task, tuple(sorted(g, key=lambda r: (r["seed"], str(r.get("key")))))))
        for g, label, task in zip(groups, labels, tasks, strict=True)
    ]
    return [g for _, g in sorted(found, key=lambda pair: pair[0])]


def _setting(record: Record) -> dict[str, Any]:
    task = record["task"]
    options, budget = task.get("options") or {}, task.get("budget") or {}
    return {"model": (task.get("model") or {}).get("name"), **budget, **options}


def identity_of(record: Record) -> dict[str, Any]:
    algorithm, task = record["algorithm"], record["task"]
    return {
        "algorithm": [algorithm["name"], algorithm["config"], algorithm.get("version")],
        "task": [task["name"], task.get("version"), _setting(record)],
        "train": record.get("train"),
        "experiment": record.get("experiment"),
    }


def _order(record: Record) -> tuple[Any, ...]:
    config = [(k, _sortable(v)) for k, v in sorted(record["algorithm"]["config"].items())]
    train = [(k, _sortable(v)) for k, v in sorted((record.get("train") or {}).items())]
    setting = [(k, _sortable(v)) for k, v in sorted(_setting(record).items())]
    return (
        record["task"]["name"],
        record.get("experiment") or "",
        setting,
        record["algorithm"]["name"],
        config,
        train,
    )


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all rows."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    return [k for k in keys if len({_hashable(row.get(k)) for row in rows}) > 1]


def _hashable(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return (type(value), value) if plain else canonical(value)


def _labels(records: Sequence[Record]) -> list[str]:
    """`dpo`, or `dpo beta=0.5` where beta was swept; learning rates count as swept within one task only."""
    configs: dict[str, list[Mapping[str, Any]]] = {}
    trains: dict[str, list[Mapping[str, Any]]] = {}

    def here(record: Record) -> str:
        identity = identity_of(record)
        return canonical([identity["task"], identity["experiment"], record["algorithm"]["name"]])

    for record in records:
        configs.setdefault(record["algorithm"]["name"], []).append(record["algorithm"]["config"])
        trains.setdefault(here(record), []).append(record.get("train") or {})
    swept = {name: _varying(rows) for name, rows in configs.items()}
    trained = {place: _varying(rows) for place, rows in trains.items()}
    out = []
    for record in records:
        name, config = record["algorithm"]["name"], record["algorithm"]["config"]
        fields = {k: config.get(k) for k in swept[name]} | {
            k: (record.get("train") or {}).get(k) for k in trained[here(record)]
        }
        out.append(" ".join([str(name), *(f"{k}={_short(v)}" for k, v in fields.items())]))
    return out


def _task_labels(records: Sequence[Record]) -> list[str]:
    """`bandit`, or `bandit steps=100` where a setting was swept, and the experiment."""
    settings: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for record in records:
        settings.setdefault((record["task"]["name"], record.get("experiment")), []).append(_setting(record))
    swept = {place: _varying(rows) for place, rows in settings.items()}
    out = []
    for record in records:
        name, experiment = record["task"]["name"], record.get("experiment")
        setting = [f"{k}={_short(_setting(record).get(k))}" for k in swept[name, experiment]]
        out.append(" ".join([str(name), *setting, *([f"({experiment})"] if experiment else [])]))
    return out


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
