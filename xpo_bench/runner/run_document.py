"""`RUN/run.json`: what was planned for a run directory, by which commands, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

from xpo_bench.runner.record import SCHEMA, now


class PlannedCell(TypedDict):
    """A cell as `run.json` lists it, and as observers see it."""

    key: str
    algorithm: str
    config: dict[str, object]
    task: str
    seed: int
    experiment: str | None


class Skipped(TypedDict):
    """A combination that `--algos all` left out."""

    algorithm: str
    task: str
    reason: str


class Unreachable(TypedDict):
    """A task whose data cannot be had."""

    task: str
    reason: str


class Command(TypedDict):
    """A command that wrote to the run directory."""

    argv: list[str]
    at: str


class Trial(TypedDict):
    """One configuration of the tuned protocol: what it changes, and its score, None where it has none."""

    changes: dict[str, float]
    score: float | None


class Study(TypedDict):
    """One search of the tuned protocol: the seeds of its trials, what it chose, and the cells at that."""

    seeds: list[int]
    trials: list[Trial]
    chosen: int
    changes: dict[str, float]
    reason: str | None
    keys: list[str]


class Tuning(TypedDict):
    """What the tuned protocol found for one algorithm on one task.

    `space` holds the bounds of what was searched, `spread` the quartiles and ends of metrics over the trials,
    `reason` why only the default is run, `keys` the cells to compare: `default` and `tuned`. `seeds`,
    `trials`, `chosen` and `changes` are those of the first of the `studies`.
    """

    algorithm: str
    task: str
    experiment: str | None
    select: str
    seeds: list[int]
    space: dict[str, list[float]]
    trials: list[Trial]
    chosen: int
    changes: dict[str, float]
    spread: dict[str, dict[str, float]]
    reason: str | None
    keys: dict[str, list[str]]
    studies: list[Study]


class RunDocument(TypedDict, total=False):
    """All of `run.json`; empty where there is none yet."""

    schema: Literal[1]
    commands: list[Command]
    plan: list[PlannedCell]
    skipped: list[Skipped]
    unreachable: list[Unreachable]
    environment: Mapping[str, object]
    tuning: list[Tuning]
    targets: list[dict[str, object]]
    created: str


def extended(
    before: RunDocument,
    cells: Iterable[PlannedCell],
    skipped: Sequence[Skipped],
    unreachable: list[Unreachable],
    argv: list[str],
    environment: Mapping[str, object],
) -> RunDocument:
    """The document of a run directory that now also holds these cells; its earlier plan and commands stay."""
    document: RunDocument = {
        "schema": SCHEMA,
        "commands": [*before.get("commands", []), {"argv": argv, "at": now()}],
        "plan": _once([*before.get("plan", []), *cells]),
        "skipped": _sorted([*before.get("skipped", []), *skipped]),
        "unreachable": unreachable,
        "environment": environment,
        "created": before.get("created") or now(),
    }
    if "tuning" in before:
        document["tuning"] = before["tuning"]
    if "targets" in before:
        document["targets"] = before["targets"]
    return document


def joined(runs: Sequence[RunDocument]) -> RunDocument:
    """The document of several run directories in one: every command, and every planned cell once."""
    known = [run for run in runs if run]
    return {
        "schema": SCHEMA,
        "commands": sorted(
            (command for run in known for command in run.get("commands", [])),
            key=lambda command: str(command.get("at")),
        ),
        "plan": _once(cell for run in known for cell in run.get("plan", [])),
        "skipped": _sorted([entry for run in known for entry in run.get("skipped", [])]),
        "unreachable": [entry for run in known for entry in run.get("unreachable", [])],
        "environment": next((run["environment"] for run in known if "environment" in run), {}),
        "created": min((str(run["created"]) for run in known if "created" in run), default=""),
    }


def _once(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """One entry per key, the last one in the place of the first."""
    return list({cell["key"]: cell for cell in cells}.values())


def _sorted(entries: Iterable[Skipped]) -> list[Skipped]:
    distinct = {(entry["task"], entry["algorithm"], entry["reason"]): entry for entry in entries}
    return sorted(distinct.values(), key=lambda entry: (entry["task"], entry["algorithm"]))
