"""run.json as reports read it: what was planned, left out, tuned and searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from xpo_bench.report.records import Raw, Settings
from xpo_bench.runner.run_document import Skipped, Unreachable


class Stopped(TypedDict):
    """Where the runs of an algorithm first pass a target KL: `steps` of the seeds, out of `of`."""

    value: float | None
    steps: Sequence[int]
    of: int
    kl: float | None
    reached: bool
    keys: Sequence[str]


class Target(TypedDict):
    """What `--target-kl` came to for one algorithm on one task; `value` is null where none holds it."""

    algorithm: str
    task: str
    field: str | None
    value: float | None
    kl: float | None
    reason: str | None
    checkpoint: NotRequired[Stopped | None]


class Spread(TypedDict):
    """A metric over the trials of an algorithm; `failed` trials have none."""

    best: float
    worst: float
    q1: float
    median: float
    q3: float
    n: int
    failed: int


class Sides(TypedDict):
    """The keys of the cells at the default and at the chosen trial."""

    default: Sequence[str]
    tuned: Sequence[str]


class Study(TypedDict):
    """One of the searches of the tuned protocol, and the keys of the cells at what it chose, one per seed."""

    seeds: Sequence[int]
    trials: Sequence[Raw]
    chosen: int
    changes: Settings
    reason: str | None
    keys: Sequence[str]


class Tuning(TypedDict):
    """What the tuned protocol chose for one algorithm on one task, and why where it tried nothing."""

    algorithm: str
    task: str
    experiment: str | None
    select: str
    seeds: Sequence[int]
    trials: Sequence[Raw]
    chosen: int
    changes: Settings
    spread: Mapping[str, Spread]
    reason: str | None
    keys: Sides
    studies: NotRequired[Sequence[Study]]


@dataclass(frozen=True)
class RunFile:
    """run.json, as far as a report reads it; empty where there is none."""

    skipped: Sequence[Skipped] = ()
    unreachable: Sequence[Unreachable] = ()
    targets: Sequence[Target] = ()
    tuning: Sequence[Tuning] = ()
    commands: Sequence[Sequence[str]] = ()
    planned: Sequence[str] = ()
    """The keys of the plan, in the order in which commands added them."""

    @classmethod
    def of(cls, raw: Raw) -> RunFile:
        """From the document, which may lack any part."""
        return cls(
            skipped=raw.get("skipped") or (),
            unreachable=raw.get("unreachable") or (),
            targets=raw.get("targets") or (),
            tuning=raw.get("tuning") or (),
            commands=[c.get("argv", ()) for c in raw.get("commands") or () if isinstance(c, dict)],
            planned=[str(cell["key"]) for cell in raw.get("plan") or () if "key" in cell],
        )
