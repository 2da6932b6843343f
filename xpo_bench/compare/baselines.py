"""What is compared: the records of a run directory, or of a committed baseline, and the settings that have to
agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from xpo_bench.contract.settings import Budget
from xpo_bench.errors import UsageError
from xpo_bench.metrics.names import current
from xpo_bench.report.records import Raw as Record
from xpo_bench.runner.settings import dump
from xpo_bench.runner.store import DONE, SCHEMA, SIZE_LIMIT, Store

KIND = "xpo-bench baseline"
CURVES = ("chosen_logp", "rejected_logp", "kl", "reward_accuracy")
POINTS = 8
"""Points of a curve that a baseline keeps, the last one among them."""
MACHINE = ("platform", "processor", "device", "threads", "accelerator")
"""What of an environment has to be the same for the same bits, next to the versions of `NUMERIC`."""
NUMERIC = ("torch", "numpy", "transformers")


@dataclass
class Baseline:
    """Records by identity, with curves by key. `damaged`: what was left out, and why."""

    name: str
    records: list[Record]
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def cells(self) -> dict[str, dict[int, Record]]:
        """Canonical identity -> seed -> record."""
        out: dict[str, dict[int, Record]] = {}
        for record in self.records:
            out.setdefault(canonical(identity(record)), {})[record["seed"]] = record
        return out


def read_side(path: Path) -> Baseline:
    """A run directory, or a file that `xpo-bench baseline` has written.

    Raises:
        UsageError: it is neither, or holds no record.
    """
    if path.is_dir():
        store = Store.existing(path)
        # trials are a search: judged, they would only multiply the comparisons that verdicts are corrected
        # for
        records = [r for r in store.records() if r.get("protocol", {}).get("role") != "trial"]
        side = Baseline(
            str(path),
            list(records),
            _curves(path, records),
            [f"{p}: {why}" for p, why in store.damaged.items()],
        )
    else:
        side = _baseline(path)
    if not side.records:
        raise UsageError(f"{path}: holds no finished cell yet")
    return side


def _curves(root: Path, records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    from xpo_bench.report.curves import curve_reader

    read = curve_reader(root)
    return {record["key"]: thinned(read(record["key"])) for record in records}


def thinned(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most `POINTS` points of a curve, evenly spread over its evaluations, with the columns that are
    compared.
    """
    places = sorted({round(i * (len(rows) - 1) / (POINTS - 1)) for i in range(POINTS)}) if rows else []
    return [
        {name: rows[i].get(name) for name in ("step", *CURVES) if rows[i].get(name) is not None}
        for i in places
    ]


def _baseline(path: Path) -> Baseline:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise UsageError(f"{path}: larger than {SIZE_LIMIT >> 20} MiB; a baseline is a short JSON file")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); name a run directory or a baseline"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path}: not JSON; name a run directory, or a file that `xpo-bench baseline` has written"
        ) from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UsageError(f"{path}: no baseline; `xpo-bench baseline RUN -o FILE` writes one")
    if document.get("schema") != SCHEMA:
        raise UsageError(
            f"{path}: a baseline of schema {str(document.get('schema'))[:20]}; this version reads {SCHEMA}"
        )
    records, curves = document.get("records"), document.get("curves")
    whole = isinstance(records, list) and all(map(_is_record, records)) and isinstance(curves, dict)
    if not whole:
        raise UsageError(
            f"{path}: a baseline that is not whole; write it again by `xpo-bench baseline RUN -o FILE`"
        )
    assert isinstance(records, list)
    records = [{**record, "metrics": current(record["metrics"])} for record in records]
    return Baseline(
        str(path), records, {k: [current(row) for row in rows] for k, rows in (curves or {}).items()}
    )


def _is_record(value: Any) -> bool:
    parts = {
        "algorithm": dict,
        "task": dict,
        "metrics": dict,
        "environment": dict,
        "status": str,
        "seed": int,
        "key": str,
    }
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in parts.items())


def baseline(side: Baseline) -> dict[str, Any]:
    """The document of a baseline: what a comparison needs of finished cells, and nothing of the machine's
    paths.
    """
    records = [_kept(record) for record in side.records if record["status"] in DONE]
    if not records:
        raise UsageError(f"{side.name}: no cell is ok; there is nothing to compare with later")
    kept = {record["key"] for record in records}
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "records": records,
        "curves": {k: v for k, v in side.curves.items() if k in kept},
    }


def _kept(record: Record) -> dict[str, Any]:
    algorithm, task, environment = record["algorithm"], record["task"], record["environment"]
    data = task.get("data") or {}
    return {
        **{name: record.get(name) for name in ("key", "status", "seed", "experiment", "train", "metrics")},
        "algorithm": {name: algorithm.get(name) for name in ("name", "config", "distribution", "version")},
        "task": {
            **{name: task.get(name) for name in ("name", "version", "budget", "expected_divergence")},
            "options": _pathless(task.get("options") or {}),
            "data": {"fingerprint": data.get("fingerprint")},
            "model": {"name": _model(task)},
        },
        "environment": {
            name: environment.get(name) for name in ("python", *MACHINE, "packages") if name in environment
        },
    }


def _model(task: Mapping[str, Any]) -> str | None:
    """The name of the model; of a path its last part, wherever it lies."""
    name = (task.get("model") or {}).get("name")
    return PurePath(name).name if name else None


USUAL = dump(Budget())
"""What a budget says where it was written before a field was there: such a field comes with what runs did
until then.
"""


def identity(record: Record) -> dict[str, Any]:
    """What has to be the same for two cells to be one and the same at two times; the seed, the data and
    versions apart.
    """
    algorithm, task = record["algorithm"], record["task"]
    return {
        "algorithm": algorithm["name"],
        "task": task["name"],
        "experiment": record.get("experiment"),
        "config": algorithm.get("config"),
        "train": record.get("train"),
        "model": _model(task),
        "options": _pathless(task.get("options") or {}),
        "budget": USUAL | (task.get("budget") or {}),
    }


def _pathless(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options apart from paths; one that was not given is as good as one that an older version did not have."""
    return {
        name: value
        for name, value in options.items()
        if name not in ("source", "world") and value is not None
    }


def platform(record: Record) -> dict[str, Any]:
    """The machine and the versions that two records have to share for the same bits."""
    environment = record["environment"]
    packages = environment.get("packages") or {}
    return {name: environment.get(name) for name in MACHINE} | {name: packages.get(name) for name in NUMERIC}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
