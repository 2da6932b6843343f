"""Records as reports read them: typed, with what an older record lacks filled in here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]
"""A record as the store gives it; its fields are those of docs/record.schema.json."""
Settings = Mapping[str, Any]
"""Open parts of a record, such as a configuration or a budget: name -> a JSON value."""
COUNTED = ("ok", "diverged")
"""Statuses whose metrics count; those of a run that diverged are of its last finite evaluation."""
ARTICLE = "article"
"""The one suite whose experiments have names; a record without `suite` may be of it."""
SEARCH = " search"
"""How the experiment of a cell ends that `--target-kl` or `--protocol tuned` only tried on its way."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`algorithm` of a record: what ran, and the plugin that it is from."""

    name: str
    config: Settings
    plugin: str | None
    distribution: str | None
    version: str | None
    regulariser: tuple[str, int] | None
    file: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """`task.data` of a record.

    Args:
        overlap: what stands on both sides of the split: texts, and held-out rows that hold one.
        template: what made text of conversational rows; `told_template` is false where a record is older than
            the field, which then says nothing, unlike null.
    """

    source: str | None
    revision: str | None
    kind: str | None
    fingerprint: str | None
    rows: int | None
    train: int | None
    heldout: int | None
    layout: str | None
    columns: Mapping[str, str]
    dropped: Mapping[str, int]
    notes: Mapping[str, int]
    unfit: Mapping[str, int]
    overlap: Mapping[str, int]
    truncated: int
    boundary_merges: int
    equal_ids: int
    template: str | None
    told_template: bool
    template_date: str | None

    @property
    def unlearning(self) -> bool:
        """Whether its rows are to be forgotten and retained, so that it holds no preferences."""
        return self.kind == "forget_retain"


@dataclass(frozen=True, slots=True)
class Task:
    """`task` of a record: data, model and budget."""

    name: str
    version: str | None
    options: Settings
    data: Data
    model: Settings
    budget: Settings
    expected_divergence: bool


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`checkpoint` of a record: with `--target-kl`, where a run was stopped, or that it never passes K."""

    target_kl: float
    step: int
    steps: int
    reached: bool


@dataclass(frozen=True, slots=True)
class Notes:
    """What reports read of the `notes` of a record."""

    kl_settled: bool | None
    optimum_kl: float | None
    budget_kl: float | None
    metric_errors: Mapping[str, str]
    rejected_state: str | None
    rejected_state_reason: str | None
    rejected_length: float | None


@dataclass(frozen=True, slots=True)
class Machine:
    """`environment` of a record."""

    device: str
    accelerator: str | None
    processor: str | None
    platform: str | None
    cores: int | None
    threads: int | None
    python: str | None
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failure:
    """`error` of a record."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One cell. `raw` is the record as it was stored."""

    key: str
    status: str
    error: Failure | None
    algorithm: Algorithm
    task: Task
    train: Settings
    seed: int
    experiment: str | None
    suite: str | None
    """The built-in suite that `experiment` is a part of, or may be: records had no `suite` at first."""
    role: str | None
    """Of the tuned protocol: what the cell was run for."""
    checkpoint: Checkpoint | None
    metrics: Mapping[str, float | None]
    metric_definitions: Mapping[str, Raw]
    final_policy: Mapping[str, Mapping[str, float]] | None
    steps: int | None
    vectorised_runs: int
    notes: Notes
    environment: Machine
    created: str | None
    raw: Raw

    @property
    def lr(self) -> float | None:
        """The learning rate; none of a closed form."""
        return self.train.get("lr")

    @property
    def searched(self) -> bool:
        """Whether a search only tried it on its way."""
        return str(self.experiment).endswith(SEARCH)

    @property
    def swept(self) -> tuple[str, float] | None:
        """The declared regulariser and its value, where it has one."""
        declared = self.algorithm.regulariser
        value = self.algorithm.config.get(declared[0]) if declared else None
        return None if declared is None or value is None else (declared[0], float(value))

    @property
    def closed_form(self) -> bool:
        """Whether its policy was set in closed form, so that no step has changed it."""
        return _part(self.raw, "notes").get("solved") is True

    @property
    def as_expected(self) -> bool:
        """Whether it went as it should: it is ok, or diverged where the task expects that."""
        return self.status == "ok" or (self.status == "diverged" and self.task.expected_divergence)


class _Reader:
    """Reads records, and each part that several have in common once: a large run shares most of them.

    What is read is remembered by the part itself, which the records that are returned keep alive.
    """

    def __init__(self) -> None:
        self._algorithms: dict[int, Algorithm] = {}
        self._tasks: dict[tuple[int, object], Task] = {}
        self._notes: dict[int, Notes] = {}
        self._machines: dict[int, Machine] = {}

    def record(self, raw: Raw) -> Record:
        notes, timing, error = _part(raw, "notes"), _part(raw, "timing"), raw.get("error")
        return Record(
            key=str(raw.get("key", "")),
            status=str(raw["status"]),
            error=Failure(str(error.get("type", "")), str(error.get("message", ""))) if error else None,
            algorithm=self._algorithm(raw["algorithm"]),
            task=self._task(raw["task"], notes),
            train=_part(raw, "train"),
            seed=raw["seed"],
            experiment=raw.get("experiment"),
            suite=raw.get("suite", ARTICLE),
            role=_part(raw, "protocol").get("role"),
            checkpoint=Checkpoint(**raw["checkpoint"]) if raw.get("checkpoint") else None,
            metrics=_part(raw, "metrics"),
            metric_definitions=_part(raw, "metric_definitions"),
            final_policy=raw.get("final_policy"),
            steps=timing.get("steps"),
            vectorised_runs=timing.get("vectorised_runs", 1),
            notes=self._notes_of(notes),
            environment=self._machine(_part(raw, "environment")),
            created=raw.get("created"),
            raw=raw,
        )

    def _algorithm(self, part: Raw) -> Algorithm:
        if (found := self._algorithms.get(id(part))) is None:
            found = self._algorithms[id(part)] = _algorithm(part)
        return found

    def _task(self, part: Raw, notes: Raw) -> Task:
        known = (id(part), notes.get("truncated"))
        if (found := self._tasks.get(known)) is None:
            found = self._tasks[known] = _task(part, notes)
        return found

    def _notes_of(self, part: Raw) -> Notes:
        if (found := self._notes.get(id(part))) is None:
            found = self._notes[id(part)] = _notes(part)
        return found

    def _machine(self, part: Raw) -> Machine:
        if (found := self._machines.get(id(part))) is None:
            found = self._machines[id(part)] = _machine(part)
        return found


def record_of(raw: Raw) -> Record:
    """The record with defaults for every part that it lacks, which an older version has not written."""
    return _Reader().record(raw)


def records_of(raws: Iterable[Raw | Record]) -> list[Record]:
    """Each record of a run, read once; one that has been read stays as it is."""
    read = _Reader().record
    return [raw if isinstance(raw, Record) else read(raw) for raw in raws]


NOTHING: Raw = {}


def _part(raw: Raw, name: str) -> Mapping[str, Any]:
    """A part of a record that may be absent or null."""
    return raw.get(name) or NOTHING


def _algorithm(algorithm: Raw) -> Algorithm:
    regulariser = algorithm.get("regulariser")
    return Algorithm(
        name=str(algorithm["name"]),
        config=_part(algorithm, "config"),
        plugin=algorithm.get("plugin"),
        distribution=algorithm.get("distribution"),
        version=algorithm.get("version"),
        regulariser=(str(regulariser[0]), int(regulariser[1])) if regulariser else None,
        file=algorithm.get("file"),
        source=algorithm.get("source"),
    )


def _notes(notes: Raw) -> Notes:
    return Notes(
        kl_settled=notes.get("kl_settled"),
        optimum_kl=notes.get("optimum_kl"),
        budget_kl=notes.get("budget_kl"),
        metric_errors=_part(notes, "metric_errors"),
        rejected_state=notes.get("rejected_state"),
        rejected_state_reason=notes.get("rejected_state_reason"),
        rejected_length=notes.get("rejected_length"),
    )


def _task(task: Raw, notes: Raw) -> Task:
    data = _part(task, "data")
    return Task(
        name=str(task["name"]),
        version=task.get("version"),
        options=_part(task, "options"),
        data=Data(
            source=data.get("source"),
            revision=data.get("revision"),
            kind=data.get("kind"),
            fingerprint=data.get("fingerprint"),
            rows=data.get("rows"),
            train=data.get("train"),
            heldout=data.get("heldout"),
            layout=data.get("layout"),
            columns=_part(data, "columns"),
            dropped=_part(data, "dropped"),
            notes=_part(data, "notes"),
            unfit=_part(data, "unfit"),
            overlap=_part(data, "split_overlap"),
            # older records counted truncated rows among the notes of the cell
            truncated=data.get("truncated", notes.get("truncated")) or 0,
            boundary_merges=data.get("boundary_merges") or 0,
            equal_ids=data.get("equal_ids") or 0,
            template=_template(data.get("template")),
            told_template="template" in data,
            template_date=data.get("template_date"),
        ),
        model=_part(task, "model"),
        budget=_part(task, "budget"),
        expected_divergence=bool(task.get("expected_divergence")),
    )


def _template(value: str | Mapping[str, str] | None) -> str | None:
    """The name of a chat template, which may stand beside its hash."""
    return value.get("name") or next(iter(value.values()), "") if isinstance(value, Mapping) else value


def _machine(environment: Raw) -> Machine:
    return Machine(
        device=str(environment.get("device", "cpu")),
        accelerator=environment.get("accelerator"),
        processor=environment.get("processor"),
        platform=environment.get("platform"),
        cores=environment.get("cores"),
        threads=environment.get("threads"),
        python=environment.get("python"),
        packages=_part(environment, "packages"),
    )
