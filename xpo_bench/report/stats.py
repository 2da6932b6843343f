"""Means over seeds with Student-t intervals, censored steps and control: pure functions of records."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from pydantic_core import to_json
from scipy.special import stdtrit

from xpo_bench.metrics.kl import STILL
from xpo_bench.metrics.kl import control as control_slope
from xpo_bench.report.bootstrap import iqm

Record = Mapping[str, Any]
Regularisers = Mapping[str, tuple[str, int] | None]

COUNTED = ("ok", "diverged")
"""Statuses whose metrics count; those of a run that diverged are of its last finite evaluation."""
CENSORED = ("collapse_step", "heldout_collapse_step")
LEVEL = 0.95
MANY = 20
"""Seeds from which on a bootstrap interval covers what it should: 93.6 % at 10, 95.4 % at 20 in simulation."""

# --------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs and the half width of its 95 % interval, None from a single run."""

    mean: float
    half: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, or None."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)


@lru_cache(maxsize=1024)
def quantile(freedom: int) -> float:
    """Of Student's t, for a two-sided interval at `LEVEL`."""
    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and Student-t interval of the values that are known; None when none is.

    The interval may reach beyond what a share can be: it is not clipped.
    """
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    n, mean = len(known), math.fsum(known) / len(known)
    if n == 1:
        return Estimate(mean, None, 1)
    deviation = math.hypot(*(v - mean for v in known)) / math.sqrt(n - 1)  # neither overflows nor takes fractions' time
    half = quantile(n - 1) * deviation / math.sqrt(n)
    return Estimate(mean, half, n)


def censored(values: Iterable[float | None]) -> dict[str, Any]:
    """Share of runs in which it happened, and the median with "never" as later than anything (None when that is never)."""
    steps = [math.inf if v is None else float(v) for v in values]
    if not steps:
        return {"share": None, "median": None, "n": 0}
    median = statistics.median(steps)
    happened = sum(math.isfinite(s) for s in steps)
    return {"share": happened / len(steps), "median": median if math.isfinite(median) else None, "n": len(steps)}


# --------------------------------------------------------------------------- groups of seeds


@dataclass(frozen=True, eq=False)
class Group:
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
        """metric -> seed -> value; records are gone through once, since of many each costs the memory a visit."""
        out: dict[str, dict[int, float | None]] = {}
        for r in self.counted:
            seed = r["seed"]
            for name, value in r["metrics"].items():
                out.setdefault(name, {})[seed] = value
        return out

    @cached_property
    def _estimates(self) -> dict[str, Estimate | None]:
        return {}


def group(records: Sequence[Record]) -> list[Group]:
    """Records gathered over seeds, sorted by task, then algorithm, then configuration."""
    members: dict[str, list[Record]] = {}
    spelt: dict[bytes, str] = {}  # canonical JSON takes its time, and seeds are spelt alike
    for record in records:
        identity = _identity(record)
        text = to_json(identity)
        if text not in spelt:
            spelt[text] = _canonical(identity)
        members.setdefault(spelt[text], []).append(record)
    groups = list(members.values())
    labels = _labels([g[0] for g in groups])
    tasks = _task_labels([g[0] for g in groups])
    found = [
        (_order(g[0]), Group(label, task, tuple(sorted(g, key=lambda r: (r["seed"], str(r.get("key")))))))
        for g, label, task in zip(groups, labels, tasks, strict=True)
    ]
    return [g for _, g in sorted(found, key=lambda pair: pair[0])]


def _setting(record: Record) -> dict[str, Any]:
    task = record["task"]
    options, budget = task.get("options") or {}, task.get("budget") or {}
    return {"model": (task.get("model") or {}).get("name"), **budget, **options}


def _identity(record: Record) -> dict[str, Any]:
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
    return (record["task"]["name"], record.get("experiment") or "", setting, record["algorithm"]["name"], config, train)


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all rows."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    return [k for k in keys if len({_hashable(row.get(k)) for row in rows}) > 1]


def _hashable(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return (type(value), value) if plain else _canonical(value)


def _labels(records: Sequence[Record]) -> list[str]:
    """`dpo`, or `dpo beta=0.5` where beta was swept; learning rates count as swept within one task only."""
    configs: dict[str, list[Mapping[str, Any]]] = {}
    trains: dict[str, list[Mapping[str, Any]]] = {}

    def here(record: Record) -> str:
        identity = _identity(record)
        return _canonical([identity["task"], identity["experiment"], record["algorithm"]["name"]])

    for record in records:
        configs.setdefault(record["algorithm"]["name"], []).append(record["algorithm"]["config"])
        trains.setdefault(here(record), []).append(record.get("train") or {})
    swept = {name: _varying(rows) for name, rows in configs.items()}
    trained = {place: _varying(rows) for place, rows in trains.items()}
    out = []
    for record in records:
        name, config = record["algorithm"]["name"], record["algorithm"]["config"]
        fields = {k: config.get(k) for k in swept[name]} | {k: (record.get("train") or {}).get(k) for k in trained[here(record)]}
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


# --------------------------------------------------------------------------- the summary


def summarise(records: Sequence[Record], regularisers: Regularisers | None = None) -> list[dict[str, Any]]:
    """One row per algorithm x config x task x experiment: what `--json` prints as `summary`.

    Args:
        regularisers: algorithm -> (field, direction), for `control`; by default what the records declare.

    Returns:
        rows of `algorithm, config, train, task, experiment, label, n, status` and `metrics`: name ->
        {"mean", "ci95": [low, high] or None, "n"}; for collapse_step {"share", "median", "n"}.
    """
    groups = group(records)
    sweeps = control(groups, regularisers)
    out = []
    for g in groups:
        first = g.records[0]
        metrics: dict[str, Any] = {}
        for name in g.names:
            if name in CENSORED:
                metrics[name] = censored(g.values(name).values())
            else:
                metrics[name] = _as_json(g.estimate(name)) | _robust(g.values(name).values())
        if g in sweeps:
            metrics["control"] = sweeps[g]
        out.append(
            {
                "algorithm": first["algorithm"]["name"],
                "config": dict(first["algorithm"]["config"]),
                "train": dict(first.get("train") or {}),
                "task": first["task"]["name"],
                "experiment": first.get("experiment"),
                "label": g.label,
                "setting": g.task,
                "n": len(g.records),
                "status": g.status,
                "metrics": metrics,
            }
        )
    return out


def _as_json(found: Estimate | None) -> dict[str, Any]:
    if found is None:
        return {"mean": None, "ci95": None, "n": 0}
    return {"mean": found.mean, "ci95": list(found.interval) if found.interval else None, "n": found.n}


def _robust(values: Iterable[float | None]) -> dict[str, Any]:
    """From `MANY` seeds on: the interquartile mean, which single odd runs do not move, with its 95 % bootstrap interval."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if len(known) < MANY:
        return {}
    middle, low, high = iqm(known)
    return {"iqm": middle, "iqm_ci95": [low, high]}


# --------------------------------------------------------------------------- control


def control(groups: Sequence[Group], regularisers: Regularisers | None = None) -> dict[Group, dict[str, Any]]:
    """`control` of every sweep of a declared regulariser, as a metric of each group of the sweep.

    A sweep holds the groups of one algorithm, task and experiment that differ in that field alone, at two or
    more positive values. The value is null unless every run is ok, settled (`notes.kl_settled`) and has a
    kl above rounding. `optimum` is the same slope over the exact optimum's KL (`notes.optimum_kl`), where known.
    """
    out: dict[Group, dict[str, Any]] = {}
    sweeps: dict[str, list[tuple[Group, float, int]]] = {}
    for g in groups:
        first = g.records[0]
        declared = (regularisers or {}).get(first["algorithm"]["name"]) or first["algorithm"].get("regulariser")
        value = first["algorithm"]["config"].get(declared[0]) if declared else None
        if not declared or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            continue
        identity = _identity(first)
        name, config, version = identity["algorithm"]
        rest = identity | {"algorithm": [name, {k: v for k, v in config.items() if k != declared[0]}, version]}
        sweeps.setdefault(_canonical(rest), []).append((g, float(value), int(declared[1])))
    for members in sweeps.values():
        if len({value for _, value, _ in members}) > 1:
            row = _control(members)
            out |= {g: row for g, _, _ in members}
    return out


def _control(members: Sequence[tuple[Group, float, int]]) -> dict[str, Any]:
    runs = [(value, r) for g, value, _ in members for r in g.records]
    direction = members[0][2]
    nothing = {"mean": None, "ci95": None, "n": len(runs), "optimum": None}
    settled = all(r["status"] == "ok" and (r.get("notes") or {}).get("kl_settled") is True for _, r in runs)
    kl = _positive(r["metrics"].get("kl") for _, r in runs)
    if not settled or kl is None:
        return nothing
    knob = [value for value, _ in runs]
    mean, se = control_slope(kl, knob, direction)
    half = quantile(len(runs) - 2) * se if len(runs) > 2 else None
    exact = _positive((r.get("notes") or {}).get("optimum_kl") for _, r in runs)
    optimum = control_slope(exact, knob, direction)[0] if exact else None
    return nothing | {"mean": mean, "ci95": None if half is None else [mean - half, mean + half], "optimum": optimum}


def _positive(values: Iterable[float | None]) -> list[float] | None:
    """The values of a KL, or None when one of them is unknown or no more than rounding, whose logarithm says nothing."""
    found = list(values)
    known = [float(v) for v in found if v is not None and v > STILL]
    return known if len(known) == len(found) else None
