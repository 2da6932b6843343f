"""The records that a comparison reads: of a run directory, or of a committed baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal, TypedDict

from xpo_bench.contract.settings import Budget
from xpo_bench.errors import UsageError
from xpo_bench.metrics.names import current
from xpo_bench.report.runs import canonical
from xpo_bench.runner.settings import dump
from xpo_bench.runner.store import DONE, SCHEMA, SIZE_LIMIT, Store

Tree = Mapping[str, Any]
"""A record, or a part of one, as it was read from JSON."""
Curve = Sequence[Mapping[str, float | None]]
"""Evaluations of one run in order, each with its `step`."""
KIND = "xpo-bench baseline"
CURVES = ("chosen_logp", "rejected_logp", "kl", "reward_accuracy")
POINTS = 8
"""Points of a curve that a baseline keeps, the last one among them."""
MACHINE = ("platform", "processor", "device", "threads", "accelerator")
"""The part of an environment that has to be the same for the same bits, next to the versions of `NUMERIC`."""
NUMERIC = ("torch", "numpy", "transformers")
BUDGET_DEFAULTS = dump(Budget())
"""A record written before a budget had some field gets the field's default: runs did that until then."""
PARTS = {
    "algorithm": dict,
    "task": dict,
    "metrics": dict,
    "environment": dict,
    "status": str,
    "seed": int,
    "key": str,
}
"""The parts that every record of a baseline has, and their JSON types."""


@dataclass(frozen=True)
class Cell:
    """One record as a comparison sees it.

    Attributes:
        identity: all that two cells must share to be the same cell of two runs; the seed, the data and
            versions apart. platform: all that they must share for the same bits.
        version: distribution and version of the algorithm. sources: digests of the sources of the algorithm
            and of the task, None where the record is older than them. data: fingerprint of the data.
        metrics: name -> value; None where it is undefined.
    """

    key: str
    seed: int
    status: str
    algorithm: str
    task: str
    experiment: str | None
    identity: Tree
    platform: Mapping[str, str | None]
    version: str
    sources: Mapping[Literal["algorithm", "task"], str | None]
    task_version: int | None
    data: str | None
    expected_divergence: bool
    metrics: Mapping[str, float | None]

    @property
    def trained_elsewhere(self) -> bool:
        """Whether `evaluate` measured it: the model was there, and nothing was trained."""
        return bool(self.identity["train"] == {})


class Document(TypedDict):
    """The JSON of a baseline file."""

    kind: str
    schema: int
    records: list[dict[str, Any]]
    curves: dict[str, Curve]


@dataclass
class Baseline:
    """Records with their curves by key.

    Attributes:
        records: of equal settings and seed the last one counts. damaged: the files that were left out, and
            why. superseded: records that were left out since a later command measured their cells again.
    """

    name: str
    records: Sequence[Tree]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    superseded: int = 0

    @cached_property
    def all_cells(self) -> list[Cell]:
        """Every record as a cell, in order."""
        return [cell_of(record) for record in self.records]

    def cells(self) -> dict[str, dict[int, Cell]]:
        """Canonical identity -> seed -> cell."""
        out: dict[str, dict[int, Cell]] = {}
        for cell in self.all_cells:
            out.setdefault(canonical(cell.identity), {})[cell.seed] = cell
        return out


def read(path: Path) -> Baseline:
    """A run directory, or a file that `xpo-bench baseline` has written.

    Raises:
        UsageError: it is neither, or holds no record.
    """
    found = _from_run(path) if path.is_dir() else _from_file(path)
    if not found.records:
        raise UsageError(f"{path}: holds no finished cell yet")
    return found


def _from_run(path: Path) -> Baseline:
    store = Store.existing(path)
    # Trials of a search are no results: more comparisons would only cost power after Holm's correction.
    found = [r for r in store.records() if part(r, "protocol").get("role") != "trial"]
    damaged = [f"{file}: {why}" for file, why in store.damaged.items()]
    records = _latest(found, [cell["key"] for cell in store.read_run().get("plan", [])])
    return Baseline(str(path), records, _curves(path, records), damaged, len(found) - len(records))


def _latest(records: Sequence[Tree], planned: Sequence[str]) -> list[Tree]:
    """The records without those whose settings and seed a later command ran again, from another source."""
    place = {key: number for number, key in enumerate(planned)}
    last: dict[tuple[str, int], Tree] = {}
    for record in sorted(records, key=lambda r: place.get(r["key"], -1)):
        last[canonical(cell_of(record).identity), record["seed"]] = record
    kept = {record["key"] for record in last.values()}
    return [record for record in records if record["key"] in kept]


def _curves(root: Path, records: Iterable[Tree]) -> dict[str, Curve]:
    from xpo_bench.report.curves import curve_reader

    curve = curve_reader(root)
    return {record["key"]: thinned(curve(record["key"])) for record in records}


def thinned(rows: Sequence[Tree]) -> Curve:
    """At most `POINTS` points of a curve, evenly spread over its evaluations, with the compared columns."""
    places = sorted({round(i * (len(rows) - 1) / (POINTS - 1)) for i in range(POINTS)}) if rows else []
    return [
        {name: rows[i].get(name) for name in ("step", *CURVES) if rows[i].get(name) is not None}
        for i in places
    ]


def _from_file(path: Path) -> Baseline:
    document = _json(path)
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UsageError(f"{path}: no baseline; `xpo-bench baseline RUN -o FILE` writes one")
    if document.get("schema") != SCHEMA:
        schema = str(document.get("schema"))[:20]
        raise UsageError(f"{path}: a baseline of schema {schema}; this version reads {SCHEMA}")
    records, curves = document.get("records"), document.get("curves")
    if not (isinstance(records, list) and all(map(_is_record, records)) and isinstance(curves, dict)):
        raise UsageError(
            f"{path}: an incomplete or corrupt baseline; write it again by `xpo-bench baseline RUN -o FILE`"
        )
    # Metrics keep their values under a new name when a release renames one.
    renamed = [{**record, "metrics": current(record["metrics"])} for record in records]
    return Baseline(str(path), renamed, {key: [current(row) for row in rows] for key, rows in curves.items()})


def _json(path: Path) -> object:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise UsageError(f"{path}: larger than {SIZE_LIMIT >> 20} MiB; a baseline is a short JSON file")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); name a run directory or a baseline"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path}: not JSON; name a run directory, or a file that `xpo-bench baseline` has written"
        ) from None


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in PARTS.items())


def document_of(run: Baseline) -> Document:
    """The file of a baseline: all that a comparison needs of finished cells, and no path of the machine.

    Raises:
        UsageError: no cell is ok.
    """
    records = [_kept(record) for record in run.records if record["status"] in DONE]
    if not records:
        raise UsageError(f"{run.name}: no cell is ok; there is nothing to compare with later")
    kept = {record["key"] for record in records}
    curves = {key: rows for key, rows in run.curves.items() if key in kept}
    return {"kind": KIND, "schema": SCHEMA, "records": records, "curves": curves}


def _kept(record: Tree) -> dict[str, Any]:
    algorithm, task, environment = record["algorithm"], record["task"], record["environment"]
    # A whitelist: paths, tracebacks and variables of a machine do not belong into a committed file.
    return {
        **{name: record.get(name) for name in ("key", "status", "seed", "experiment", "train", "metrics")},
        "algorithm": {
            name: algorithm.get(name) for name in ("name", "config", "distribution", "version", "source")
        },
        "task": {
            **{
                name: task.get(name)
                for name in ("name", "version", "budget", "expected_divergence", "source")
            },
            "options": _without_paths(part(task, "options")),
            "data": {"fingerprint": part(task, "data").get("fingerprint")},
            "model": {"name": _model(task)},
        },
        "environment": {
            name: environment.get(name) for name in ("python", *MACHINE, "packages") if name in environment
        },
    }


def cell_of(record: Tree) -> Cell:
    """The cell of a record, of this or an older release."""
    algorithm, task, environment = record["algorithm"], record["task"], record["environment"]
    packages = part(environment, "packages")
    return Cell(
        key=record["key"],
        seed=record["seed"],
        status=record["status"],
        algorithm=algorithm["name"],
        task=task["name"],
        experiment=record.get("experiment"),
        identity={
            "algorithm": algorithm["name"],
            "task": task["name"],
            "experiment": record.get("experiment"),
            "config": algorithm.get("config"),
            "train": record.get("train"),
            "model": _model(task),
            "options": _without_paths(part(task, "options")),
            "budget": BUDGET_DEFAULTS | dict(part(task, "budget")),
        },
        platform={name: environment.get(name) for name in MACHINE}
        | {name: packages.get(name) for name in NUMERIC},
        version=_version(record),
        sources={"algorithm": algorithm.get("source"), "task": task.get("source")},
        task_version=task.get("version"),
        data=part(task, "data").get("fingerprint"),
        expected_divergence=bool(task.get("expected_divergence")),
        metrics=record["metrics"],
    )


def _version(record: Tree) -> str:
    algorithm = record["algorithm"]
    if record.get("train") == {}:
        return "trained elsewhere"
    return f"{algorithm.get('distribution')} {algorithm.get('version')}"


def part(tree: Tree, name: str) -> Tree:
    """The object under a name; an empty one where a record of an older release has none, or null."""
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}


def _model(task: Tree) -> str | None:
    """The name of the model; of a path its last part, wherever it lies."""
    name = part(task, "model").get("name")
    return PurePath(name).name if name else None


def _without_paths(options: Tree) -> dict[str, Any]:
    """Options apart from paths; one that was not given equals one that an older version did not have."""
    return {
        name: value
        for name, value in options.items()
        if name not in ("source", "world") and value is not None
    }
