"""A run as tables to publish: a row per cell, per point of a curve and per item, as Hugging Face data sets.

Tracebacks and directories stay at home: what a record says of them may name the machine. Of the environment a
record holds an allow-list only (`runner.environment`).
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from xpo_bench.errors import UsageError
from xpo_bench.report.curves import Curves
from xpo_bench.report.records import Raw, Record, records_of
from xpo_bench.runner.item_file import item_table
from xpo_bench.runner.keys import canonical

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Row = Mapping[str, object]
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
WHOSE = {"key": TEXT, "algorithm": TEXT, "config": TEXT, "task": TEXT, "seed": WHOLE}
"""Columns that say of which cell a point of a curve or an item is."""
POINT = {**WHOSE, "step": WHOLE}
"""Columns of a point of a curve before its metrics."""


def tables(records: Iterable[Raw | Record], curves: Curves, run: Path) -> dict[str, pa.Table]:
    """`cells`, `curves` and, where the run has them, `items` as Arrow tables.

    A metric that does not apply, or never came, is null. `run` is the directory that items are read from.
    """
    every = records_of(records)
    cells = [(_cell(r), r.metrics) for r in every]
    found = {"cells": _table(CELL, cells), "curves": curve_table(every, curves)}
    items = _items(every, run)
    return found if items is None else found | {"items": items}


def curve_table(records: Iterable[Raw | Record], curves: Curves) -> pa.Table:
    """A row per point of a curve: of which cell it is, and its metrics by name."""
    points: list[tuple[Row, Row]] = []
    for r in records_of(records):
        whose = _whose(r)
        points += [
            (
                {**whose, "step": point["step"]},
                {n: v for n, v in point.items() if n != "step" and v is not None},
            )
            for point in curves(r.key)
        ]
    return _table(POINT, points)


def _whose(r: Record) -> dict[str, object]:
    return {
        "key": r.key,
        "algorithm": r.algorithm.name,
        "config": canonical(r.algorithm.config),
        "task": r.task.name,
        "seed": r.seed,
    }


def _items(records: Sequence[Record], run: Path) -> pa.Table | None:
    """The items of all cells, behind columns that say of which cell; None where none has any."""
    import pyarrow as pa

    found = []
    for r in records:
        table, whose = item_table(run, r.key), _whose(r)
        if table is not None:
            own = [pa.array([whose[name]] * table.num_rows, kind) for name, kind in WHOSE.items()]
            found.append(pa.table([*own, *table.columns], [*WHOSE, *table.column_names]))
    return pa.concat_tables(found) if found else None


def datasets_of(records: Iterable[Raw | Record], curves: Curves, run: Path) -> dict[str, Dataset]:
    """The same as data sets; `push_to_hub(NAME, config_name="cells")` takes each."""
    from datasets import Dataset

    return {name: Dataset(table) for name, table in tables(records, curves, run).items()}


def export(root: Path, name: str, records: Iterable[Raw | Record], curves: Curves, run: Path) -> list[Path]:
    """Write every table as a parquet file, and a card that says what they are; the paths written.

    Raises:
        UsageError: the directory cannot be written.
    """
    import pyarrow.parquet as pq

    arrow = tables(records, curves, run)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for table, content in arrow.items():
            pq.write_table(content, root / f"{table}.parquet")
        (root / "README.md").write_text(card(name, arrow), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--to {root}: cannot be written ({error.strerror}); name a writable directory"
        ) from None
    return [*(root / f"{table}.parquet" for table in arrow), root / "README.md"]


def card(name: str, arrow: Mapping[str, pa.Table]) -> str:
    """The data set's card, from whose head the hub learns of the tables."""
    from xpo_bench.report.render.markdown import escape

    configs = "".join(f"- config_name: {t}\n  data_files: {t}.parquet\n" for t in arrow)
    algorithms, tasks = (sorted(set(arrow["cells"][column].to_pylist())) for column in ("algorithm", "task"))
    cells, points = arrow["cells"].num_rows, arrow["curves"].num_rows
    items = ""
    if "items" in arrow:
        items = (
            f"- `items`: {arrow['items'].num_rows} rows, one per evaluated pair or example at the last "
            "evaluation of a cell, with its log-ratios and who was right\n"
        )
    return f"""---
configs:
{configs}tags:
- preference-optimization
- xpo-bench
---

# xpo-bench run {escape(name)}

- `cells`: {cells} rows, one per algorithm, configuration, task and seed, with its final metrics
- `curves`: {points} rows, one per evaluation, with the metrics at that step; `key` names the cell
{items}
Algorithms: {escape(", ".join(algorithms))}. Tasks: {escape(", ".join(tasks))}.

A metric that does not apply, never came or is undefined is null. `config`, `budget`, `options` and `packages`
are JSON. The metrics are those of xpo-bench's docs/metrics.md, with unit and source.
"""


def _cell(r: Record) -> Row:
    algorithm, task, data, machine = r.algorithm, r.task, r.task.data, r.environment
    return {
        "key": r.key,
        "status": r.status,
        "error": f"{r.error.type}: {r.error.message}" if r.error else None,
        "algorithm": algorithm.name,
        "config": canonical(algorithm.config),
        "distribution": algorithm.distribution,
        "distribution_version": algorithm.version,
        "task": task.name,
        "task_version": _text(task.version),
        "data": _local(data.source),
        "data_revision": data.revision,
        "data_fingerprint": data.fingerprint,
        "model": _local(task.model.get("name")),
        "budget": canonical(task.budget),
        "options": canonical(task.options),
        "optimizer": r.train.get("optimizer"),
        "lr": r.lr,
        "seed": r.seed,
        "experiment": r.experiment,
        "device": machine.accelerator or machine.processor,
        "packages": canonical(machine.packages),
        "created": r.created,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _local(name: object) -> str | None:
    """A name, of an absolute path its last part."""
    if not isinstance(name, str):
        return None
    return (
        # paths of either system, wherever this runs: a directory may name a user
        PurePath(name.replace("\\", "/")).name if PurePath(name).is_absolute() or ntpath.isabs(name) else name
    )


def _table(columns: Mapping[str, str], rows: Sequence[tuple[Row, Row]]) -> pa.Table:
    """Rows of (fixed columns, metrics), the metrics by name behind them."""
    import pyarrow as pa

    metrics = sorted({name for _, measured in rows for name in measured} - set(columns))
    fields = {name: pa.array([row.get(name) for row, _ in rows], kind) for name, kind in columns.items()}
    fields |= {name: pa.array([_real(measured.get(name)) for _, measured in rows], REAL) for name in metrics}
    return pa.table(fields)


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
