"""A run as tables to publish: one row per cell and one per point of a curve, as Hugging Face data sets.

Tracebacks and directories stay at home: what a record says of them may name the machine. Of the environment a
record holds an allow-list only (`runner.environment`).
"""

from __future__ import annotations

import ntpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from xpo_bench.errors import UsageError
from xpo_bench.report.runs import Record
from xpo_bench.runner.keys import canonical

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Curves = Callable[[Record], Sequence[Mapping[str, Any]]]
TABLES = ("cells", "curves")
TEXT, WHOLE, REAL = "string", "int64", "float64"
CELL = {
    "key": TEXT,
    "status": TEXT,
    "error": TEXT,
    "algorithm": TEXT,
    "config": TEXT,
    "distribution": TEXT,
    "distribution_version": TEXT,
    "task": TEXT,
    "task_version": TEXT,
    "data": TEXT,
    "data_revision": TEXT,
    "data_fingerprint": TEXT,
    "model": TEXT,
    "budget": TEXT,
    "options": TEXT,
    "optimizer": TEXT,
    "lr": REAL,
    "seed": WHOLE,
    "experiment": TEXT,
    "device": TEXT,
    "packages": TEXT,
    "created": TEXT,
}
"""Columns of a cell before its metrics; `config`, `budget`, `options` and `packages` are JSON."""
POINT = {"key": TEXT, "algorithm": TEXT, "config": TEXT, "task": TEXT, "seed": WHOLE, "step": WHOLE}
"""Columns of a point of a curve before its metrics."""


def tables(records: Sequence[Record], curves: Curves) -> dict[str, pa.Table]:
    """`cells` and `curves` as Arrow tables; a metric that does not apply, never came or is undefined is null."""
    cells = [(_cell(r), r["metrics"]) for r in records]
    points = []
    for r in records:
        whose = {
            "key": r["key"],
            "algorithm": r["algorithm"]["name"],
            "config": canonical(r["algorithm"]["config"]),
        }
        whose |= {"task": r["task"]["name"], "seed": r["seed"]}
        points += [
            (whose | {"step": row["step"]}, {n: v for n, v in row.items() if n != "step" and v is not None})
            for row in curves(r)
        ]
    return {"cells": _table(CELL, cells), "curves": _table(POINT, points)}


def datasets_of(records: Sequence[Record], curves: Curves) -> dict[str, Dataset]:
    """The same as data sets; `push_to_hub(NAME, config_name="cells")` takes each."""
    from datasets import Dataset

    return {name: Dataset(table) for name, table in tables(records, curves).items()}


def export(root: Path, name: str, records: Sequence[Record], curves: Curves) -> list[Path]:
    """Write `cells.parquet`, `curves.parquet` and a card that says what they are; the paths written.

    Raises:
        UsageError: the directory cannot be written.
    """
    import pyarrow.parquet as pq

    found = tables(records, curves)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for table, content in found.items():
            pq.write_table(content, root / f"{table}.parquet")
        (root / "README.md").write_text(card(name, found), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--to {root}: cannot be written ({error.strerror}); name a writable directory"
        ) from None
    return [*(root / f"{table}.parquet" for table in found), root / "README.md"]


def card(name: str, found: Mapping[str, pa.Table]) -> str:
    """The data set's card, from whose head the hub learns of the two tables."""
    from xpo_bench.report.render.markdown import escape

    configs = "".join(f"- config_name: {t}\n  data_files: {t}.parquet\n" for t in found)
    algorithms, tasks = (sorted(set(found["cells"][column].to_pylist())) for column in ("algorithm", "task"))
    return f"""---
configs:
{configs}tags:
- preference-optimization
- xpo-bench
---

# xpo-bench run {escape(name)}

- `cells`: {found["cells"].num_rows} rows, one per algorithm, configuration, task and seed, with its final metrics
- `curves`: {found["curves"].num_rows} rows, one per evaluation, with the metrics at that step; `key` names the cell

Algorithms: {escape(", ".join(algorithms))}. Tasks: {escape(", ".join(tasks))}.

A metric that does not apply, never came or is undefined is null. `config`, `budget`, `options` and `packages` are JSON. The
metrics are those of xpo-bench's docs/metrics.md, with unit and source.
"""


def _cell(record: Record) -> dict[str, Any]:
    algorithm, task, error = record["algorithm"], record["task"], record.get("error")
    data, train, machine = task.get("data") or {}, record.get("train") or {}, record.get("environment") or {}
    return {
        "key": record["key"],
        "status": record["status"],
        "error": error and f"{error['type']}: {error['message']}",
        "algorithm": algorithm["name"],
        "config": canonical(algorithm["config"]),
        "distribution": algorithm.get("distribution"),
        "distribution_version": algorithm.get("version"),
        "task": task["name"],
        "task_version": _text(task.get("version")),
        "data": _local(data.get("source")),
        "data_revision": data.get("revision"),
        "data_fingerprint": data.get("fingerprint"),
        "model": _local((task.get("model") or {}).get("name")),
        "budget": canonical(task.get("budget") or {}),
        "options": canonical(task.get("options") or {}),
        "optimizer": train.get("optimizer"),
        "lr": train.get("lr"),
        "seed": record["seed"],
        "experiment": record.get("experiment"),
        "device": machine.get("accelerator") or machine.get("processor"),
        "packages": canonical(machine.get("packages") or {}),
        "created": record.get("created"),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _local(name: object) -> str | None:
    """A name, of an absolute path its last part."""
    if not isinstance(name, str):
        return None
    return (
        PurePath(name.replace("\\", "/")).name if PurePath(name).is_absolute() or ntpath.isabs(name) else name
    )


def _table(
    columns: Mapping[str, str], rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> pa.Table:
    """Rows of (fixed columns, metrics), the metrics by name behind them."""
    import pyarrow as pa

    metrics = sorted({name for _, found in rows for name in found} - set(columns))
    fields = {name: pa.array([row.get(name) for row, _ in rows], kind) for name, kind in columns.items()}
    fields |= {name: pa.array([_real(found.get(name)) for _, found in rows], REAL) for name in metrics}
    return pa.table(fields)


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
