"""Records gathered over seeds: the groups that every table is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from xpo_bench.report.format import setting
from xpo_bench.report.records import COUNTED, Raw, Record, Settings, records_of
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
        """metric -> seed -> value, in one pass: with many records each pass costs the memory a visit."""
        out: dict[str, dict[int, float | None]] = {}
        for r in self.counted:
            for name, value in r.metrics.items():
                out.setdefault(name, {})[r.seed] = value
        return out

    @cached_property
    def _estimates(self) -> dict[str, Estimate | None]:
        return {}


def without_search(records: Sequence[Record]) -> Sequence[Record]:
    """The records without those that a search only tried on its way, and without the tuned ones.

    Tuned configurations have a table of their own, beside the defaults. Where there is nothing else, all
    records are shown.
    """
    return [r for r in records if not r.searched and r.role is None] or records


def latest(records: Sequence[Record], planned: Sequence[str]) -> list[Record]:
    """The records without those whose settings and seed a later command ran again, from another source.

    Two records of one cell are one run that changed its code in between, not two runs.

    Args:
        planned: the keys of the plan, in the order in which commands added them.
    """
    place = {key: number for number, key in enumerate(planned)}
    last: dict[tuple[str, int], Record] = {}
    for record in sorted(records, key=lambda r: place.get(r.key, -1)):
        last[canonical(identity_of(record)), record.seed] = record
    kept = {id(record) for record in last.values()}
    return [record for record in records if id(record) in kept]


def group(records: Iterable[Raw | Record]) -> list[SeedGroup]:
    """Records gathered over seeds, sorted by task, then algorithm, then configuration."""
    members: dict[str, list[Record]] = {}
    spelt: dict[bytes, str] = {}  # canonical JSON takes its time, and seeds are spelt alike
    for record in records_of(records):
        identity = identity_of(record)
        text = to_json(identity)
        # to_json is fast but keeps the order of keys, which differs between versions: the same spelling
        # means the same identity, and another one is settled by sorting
        if text not in spelt:
            spelt[text] = canonical(identity)
        members.setdefault(spelt[text], []).append(record)
    firsts = [same[0] for same in members.values()]
    ordered = sorted(
        zip(map(_order, firsts), _labels(firsts), _task_labels(firsts), members.values(), strict=True),
        key=lambda entry: entry[0],
    )
    return [
        SeedGroup(label, task, tuple(sorted(same, key=lambda r: (r.seed, r.key))))
        for _, label, task, same in ordered
    ]


def identity_of(record: Record) -> dict[str, Any]:
    """What the seeds of one row have in common."""
    algorithm, task = record.algorithm, record.task
    return {
        "algorithm": [algorithm.name, algorithm.config, algorithm.version],
        "task": [task.name, task.version, _setting(record)],
        "train": record.train,
        "experiment": record.experiment,
        "suite": record.suite,
        # at the same settings one row may be held at a KL, and another pass it on its way
        "checkpoint": record.checkpoint is not None,
    }


def _setting(record: Record) -> dict[str, Any]:
    task = record.task
    return {"model": task.model.get("name"), **task.budget, **task.options}


def _order(record: Record) -> tuple[Any, ...]:
    return (
        record.task.name,
        record.experiment or "",
        _sorted(_setting(record)),
        record.algorithm.name,
        _sorted(record.algorithm.config),
        _sorted(record.train),
        record.checkpoint is not None,
    )


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
    keys = list(dict.fromkeys(k for row in rows for k in row))
    return [k for k in keys if len({_hashable(row.get(k)) for row in rows}) > 1]


def _hashable(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return (type(value), value) if plain else canonical(value)  # 1, 1.0 and True are equal in Python


def _labels(records: Sequence[Record]) -> list[str]:
    """`dpo`, or `dpo beta=0.5` where beta was swept; learning rates count as swept within one task only.
    Checkpoints are marked.
    """
    configs: dict[str, list[Settings]] = {}
    trains: dict[str, list[Settings]] = {}

    def place(record: Record) -> str:
        identity = identity_of(record)
        return canonical([identity["task"], identity["experiment"], record.algorithm.name])

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
    settings: dict[tuple[str, str | None], list[Settings]] = {}
    for record in records:
        settings.setdefault((record.task.name, record.experiment), []).append(_setting(record))
    swept = {place: _varying(rows) for place, rows in settings.items()}
    out = []
    for record in records:
        name, experiment, own = record.task.name, record.experiment, _setting(record)
        fields = [f"{k}={setting(own.get(k))}" for k in swept[name, experiment]]
        out.append(" ".join([name, *fields, *([f"({experiment})"] if experiment else [])]))
    return out
