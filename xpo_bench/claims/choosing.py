"""From the records of a claim's cells to the two sides of a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpo_bench.claims.definition import Choice, ClaimTest
from xpo_bench.errors import UsageError
from xpo_bench.report.curves import Curves
from xpo_bench.report.items import ItemReader
from xpo_bench.report.records import Record
from xpo_bench.report.runs import SeedGroup, group, task_setting

SHARE = "share"
"""The metric that a note becomes: 1 where it equals the word, else 0."""


@dataclass(frozen=True)
class Ran:
    """What a block came to.

    Args:
        records: one per cell. chosen, default: keys of searched cells at the configuration that was chosen,
            and at the default; empty without a search.
    """

    records: Sequence[Record]
    curves: Curves
    items: ItemReader
    chosen: frozenset[str] = frozenset()
    default: frozenset[str] = frozenset()


def sides(test: ClaimTest, ran: Ran) -> tuple[str, SeedGroup, SeedGroup | None]:
    """(metric, runs of a, runs of b) on which the test is made.

    Raises:
        UsageError: a side fits no runs, or those of several configurations.
    """
    metric = test.metric or SHARE
    chosen = [side for side in (test.a, test.b) if side is not None]
    candidates = [[_measured(g, test, side, ran) for g in _fitting(side, ran, test)] for side in chosen]
    if any(side.best for side in chosen):
        # a configuration that is chosen and judged by the same seeds looks better than it is
        seeds = sorted({r.seed for groups in candidates for g in groups for r in g.records})
        if len(seeds) < 4:
            raise UsageError(f"{test.says}: best wants four seeds or more: half of them choose, half judge")
        first, second = set(seeds[: len(seeds) // 2]), set(seeds[len(seeds) // 2 :])
        picked = [_best(groups, side, metric, first) for groups, side in zip(candidates, chosen, strict=True)]
        found = [_at(g, second) for g in picked]
    else:
        found = [groups[0] for groups in candidates]
    return metric, found[0], found[1] if len(found) > 1 else None


def _fitting(side: Choice, ran: Ran, test: ClaimTest) -> list[SeedGroup]:
    """The groups that a side may be: one, unless the best of several is asked for."""
    own = ran.default if side.default else ran.chosen
    searched = bool(ran.chosen or ran.default)
    records = [r for r in ran.records if _fits(r, side) and (not searched or r.key in own)]
    if not records:
        raise UsageError(f"no run is {side}")
    # what was chosen may differ between studies: they are one side
    groups = [SeedGroup(str(side), records[0].task.name, tuple(records))] if searched else group(records)
    tasks = {g.records[0].task.name for g in groups}
    if len(tasks) > 1:
        raise UsageError(f"{side}: runs on {' and '.join(sorted(tasks))}; name one by task")
    if len(groups) > 1 and not side.best:
        labels = "; ".join(f"{g.label} on {g.task}" for g in groups[:4])
        raise UsageError(f"{side}: several configurations fit ({labels}); name what tells them apart")
    return groups


def _fits(record: Record, side: Choice) -> bool:
    if record.algorithm.name != side.algo or side.task not in (None, record.task.name):
        return False
    if side.lr is not None and not _equal(record.lr, side.lr):
        return False
    return all(_equal(_field(record, name), value) for name, value in side.fields.items())


def _field(record: Record, name: str) -> object:
    """A hyperparameter, or a setting of the task."""
    if not name.startswith("task."):
        source: Mapping[str, Any] = record.algorithm.config
    else:
        name = name.removeprefix("task.")
        source = task_setting(record.task)
    if name not in source:
        raise UsageError(
            f"{record.algorithm.name} on {record.task.name} has no setting {name!r} "
            f"(known: {', '.join(source)})"
        )
    return source[name]


def _equal(found: object, wanted: object) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (found, wanted))
    return math.isclose(found, wanted, rel_tol=1e-9) if numbers else found == wanted  # type: ignore[arg-type]


def _measured(g: SeedGroup, test: ClaimTest, side: Choice, ran: Ran) -> SeedGroup:
    """The group with what the test reads in its metrics."""
    if test.note is not None:
        notes = [r.raw.get("notes", {}).get(test.note) for r in g.records]
        values: list[float | None] = [None if note is None else float(note == test.equals) for note in notes]
        return _with(g, SHARE, values)
    assert test.metric is not None
    if side.at == "end":
        return g
    return _with(g, test.metric, [_on_path(ran.curves(r.key), test.metric, side) for r in g.records])


def _with(g: SeedGroup, metric: str, values: Sequence[float | None]) -> SeedGroup:
    records = [
        replace(r, metrics={**r.metrics, metric: value}) for r, value in zip(g.records, values, strict=True)
    ]
    return replace(g, records=tuple(records))


def _on_path(points: Sequence[Mapping[str, Any]], metric: str, side: Choice) -> float | None:
    values = [p[metric] for p in points if p.get(metric) is not None]
    if not values:
        return None
    return float({"max": max(values), "min": min(values), "start": values[0]}[side.at])


def _best(groups: Sequence[SeedGroup], side: Choice, metric: str, seeds: set[int]) -> SeedGroup:
    if not side.best:
        return groups[0]
    means = [(found.mean, g) for g in groups if (found := _at(g, seeds).estimate(metric)) is not None]
    if not means:
        raise UsageError(f"{side}: no run has {metric}")
    pick = max if side.best == "highest" else min
    return pick(means, key=lambda entry: entry[0])[1]


def _at(g: SeedGroup, seeds: set[int]) -> SeedGroup:
    return replace(g, records=tuple(r for r in g.records if r.seed in seeds))
