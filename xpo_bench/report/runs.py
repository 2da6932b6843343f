"""Records gathered over seeds: the groups that every table is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from xpo_bench.report.format import setting
from xpo_bench.report.records import COUNTED, Raw, Record, Settings, Task, records_of
from xpo_bench.statistics import Estimate, estimate

MARK = "†"
"""Behind the label of rows that are checkpoints of runs which had not converged."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """The seeds of one algorithm x config x task x experiment; equal only to itself.

    `label` is the algorithm with whatever was swept; `task` the task with whatever of its settings was, and
    the experiment.
    """

    label: str
    task: str
    records: tuple[Record, ...]

    @property
    def algorithm(self) -> str:
        """The name of its algorithm."""
        return self.records[0].algorithm.name

    @cached_property
    def counted(self) -> tuple[Record, ...]:
        """Records whose metrics count."""
        return tuple(r for r in self.records if r.status in COUNTED)

    @cached_property
    def status(self) -> dict[str, int]:
        """How many records there are of each status."""
        return dict(Counter(r.status for r in self.records))

    @cached_property
    def shares_a_clock(self) -> bool:
        """Whether some run trained as one computation with others."""
        return any(r.vectorised_runs > 1 for r in self.records)

    @cached_property
    def unlearns(self) -> bool:
        """Whether its data is to be forgotten and retained, so that it holds no preferences."""
        return all(r.task.data.unlearning for r in self.records)

    @property
    def names(self) -> list[str]:
        """Every metric that some counted record has."""
        return list(dict.fromkeys(name for r in self.counted for name in r.metrics))

    def values(self, name: str) -> Mapping[int, float | None]:
        """seed -> value, of the counted records that have the metric."""
        if (found := self._values.get(name)) is None:
            found = {r.seed: r.metrics[name] for r in self.counted if name in r.metrics}
            self._values[name] = found
        return found

    def known(self, name: str) -> bool:
        """Whether some run has a value of the metric."""
        return any(r.metrics.get(name) is not None for r in self.counted)

    def estimate(self, name: str) -> Estimate | None:
        """Mean and interval of a metric over seeds."""
        if name not in self._estimates:
            self._estimates[name] = estimate(self.values(name).values())
        return self._estimates[name]

    @cached_property
    def _values(self) -> dict[str, dict[int, float | None]]:
        return {}

    @cached_property
    def _estimates(self) -> dict[str, Estimate | None]:
        return {}


def without_search(records: Sequence[Record]) -> Sequence[Record]:
    """The records without those that a search only tried on its way, and without the tuned ones.

    Tuned configurations have a table of their own, beside the defaults. Where there is nothing else, all
    records are shown.
    """
    return [r for r in records if not r.searched and r.role is None] or records


def latest(records: Sequence[Record], planned: Sequence[str], same: Identities | None = None) -> list[Record]:
    """The records without those whose settings a later command ran from another source.

    Two records of one cell are one run that changed its code in between, not two runs; and seeds of two
    sources have no mean.

    Args:
        planned: the keys of the plan, in the order in which commands added them.
        same: what is known of the records' identities.
    """
    same = same or Identities()
    place = {key: number for number, key in enumerate(planned)}
    last: dict[tuple[Hashable, int], Record] = {}
    sources: dict[Hashable, str] = {}
    for record in sorted(records, key=lambda r: place.get(r.key, -1)):
        last[same.of(record), record.seed] = record
        if record.algorithm.source:
            sources[same.of(record)] = record.algorithm.source
    kept = {
        id(record) for (row, _), record in last.items() if record.algorithm.source in (None, sources.get(row))
    }
    return [record for record in records if id(record) in kept]


def group(records: Iterable[Raw | Record], same: Identities | None = None) -> list[SeedGroup]:
    """Records gathered over seeds, sorted by task, then algorithm, then configuration.

    Args:
        same: what is known of the records' identities.
    """
    same = same or Identities()
    members: dict[Hashable, list[Record]] = {}
    for record in records_of(records):
        members.setdefault(same.of(record), []).append(record)
    firsts = [seeds[0] for seeds in members.values()]
    ordered = sorted(
        zip(_orders(firsts), _labels(firsts, same), _task_labels(firsts), members.values(), strict=True),
        key=lambda entry: entry[0],
    )
    return [
        SeedGroup(label, task, tuple(sorted(seeds, key=lambda r: (r.seed, r.key))))
        for _, label, task, seeds in ordered
    ]


def identity_of(record: Record) -> dict[str, Any]:
    """What the seeds of one row have in common."""
    algorithm, task = record.algorithm, record.task
    return {
        "algorithm": [algorithm.name, algorithm.config, algorithm.version],
        "task": [task.name, task.version, task_setting(task)],
        "train": record.train,
        "experiment": record.experiment,
        "suite": record.suite,
        # at the same settings one row may be held at a KL, and another pass it on its way
        "checkpoint": record.checkpoint is not None,
    }


class Identities:
    """`identity_of` records as something to look up: equal where they are equal.

    Canonical JSON takes its time: it is written once for a part that records have in common, and for parts
    that are spelt alike. What is remembered is kept alive by the records, which have to outlive this.
    """

    def __init__(self) -> None:
        self._of_part: dict[int, str] = {}
        self._of_spelling: dict[bytes, str] = {}

    def of(self, record: Record) -> tuple[Hashable, ...]:
        """Algorithm, task, train, and the plain parts."""
        known, a, t, train = self._of_part.get, record.algorithm, record.task, record.train
        return (
            known(id(a)) or self._told(a, [a.name, a.config, a.version]),
            known(id(t)) or self._told(t, [t.name, t.version, task_setting(t)]),
            known(id(train)) or self._told(train, train),
            record.experiment,
            record.suite,
            record.checkpoint is not None,
        )

    def _told(self, part: object, value: object) -> str:
        # to_json is fast but keeps the order of keys, which differs between versions: the same spelling means
        # the same identity, and another one is settled by sorting
        spelling = to_json(value)
        if spelling not in self._of_spelling:
            self._of_spelling[spelling] = canonical(value)
        told = self._of_part[id(part)] = self._of_spelling[spelling]
        return told


def task_setting(task: Task) -> dict[str, Any]:
    """What was set of a task: its model's name, its budget and its options."""
    return {"model": task.model.get("name"), **task.budget, **task.options}


def _orders(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    """Where each record stands: by task, then algorithm, then configuration."""
    tasks: dict[int, list[Any]] = {}  # many have one in common
    trains: dict[int, list[Any]] = {}
    out = []
    for record in records:
        task, train = record.task, record.train
        if id(task) not in tasks:
            tasks[id(task)] = _sorted(task_setting(task))
        if id(train) not in trains:
            trains[id(train)] = _sorted(train)
        out.append(
            (
                task.name,
                record.experiment or "",
                tasks[id(task)],
                record.algorithm.name,
                _sorted(record.algorithm.config),
                trains[id(train)],
                record.checkpoint is not None,
            )
        )
    return out


def _sorted(settings: Settings) -> list[tuple[str, tuple[int, float, str]]]:
    """Settings in an order that numbers, texts and nulls have among one another."""
    return [(name, _sortable(value)) for name, value in sorted(settings.items())]


def _sortable(value: Any) -> tuple[int, float, str]:
    # numbers by value before everything else by name: beta=2 stands above beta=10
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def canonical(value: Any) -> str:
    """JSON with sorted keys, to tell whether two values are the same."""
    return json.dumps(value, sort_keys=True, default=str)


def _varying(rows: Sequence[Settings]) -> list[str]:
    """Keys whose values are not the same in all rows."""
    rows = list({id(row): row for row in rows}.values())
    keys = list(dict.fromkeys(k for row in rows for k in row))
    return [k for k in keys if len({_hashable(row.get(k)) for row in rows}) > 1]


def _hashable(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return (type(value), value) if plain else canonical(value)  # 1, 1.0 and True are equal in Python


def _labels(records: Sequence[Record], same: Identities) -> list[str]:
    """`dpo`, or `dpo beta=0.5` where beta was swept; learning rates count as swept within one task only.
    Checkpoints are marked.
    """
    configs: dict[str, list[Settings]] = {}
    trains: dict[Hashable, list[Settings]] = {}

    def place(record: Record) -> Hashable:
        return same.of(record)[1], record.experiment, record.algorithm.name

    for record in records:
        configs.setdefault(record.algorithm.name, []).append(record.algorithm.config)
        trains.setdefault(place(record), []).append(record.train)
    swept = {name: _varying(rows) for name, rows in configs.items()}
    trained = {where: _varying(rows) for where, rows in trains.items()}
    out = []
    for record in records:
        algorithm = record.algorithm
        fields = {k: algorithm.config.get(k) for k in swept[algorithm.name]}
        fields |= {k: record.train.get(k) for k in trained[place(record)]}
        mark = [MARK] if record.checkpoint else []
        out.append(" ".join([algorithm.name, *(f"{k}={setting(v)}" for k, v in fields.items()), *mark]))
    return out


def _task_labels(records: Sequence[Record]) -> list[str]:
    """`bandit`, or `bandit steps=100` where a setting was swept, and the experiment."""
    own = {id(record.task): task_setting(record.task) for record in records}  # many have one in common
    settings: dict[tuple[str, str | None], list[Settings]] = {}
    for record in records:
        settings.setdefault((record.task.name, record.experiment), []).append(own[id(record.task)])
    swept = {place: _varying(rows) for place, rows in settings.items()}
    out = []
    for record in records:
        name, experiment = record.task.name, record.experiment
        fields = [f"{k}={setting(own[id(record.task)].get(k))}" for k in swept[name, experiment]]
        out.append(" ".join([name, *fields, *([f"({experiment})"] if experiment else [])]))
    return out
