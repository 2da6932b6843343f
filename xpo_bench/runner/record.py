"""The cell record (schema 1) and the run document: built here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from xpo_bench.runner.definitions import entry
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.settings import dump
from xpo_bench.runner.store import SCHEMA
from xpo_bench.train.job import Outcome


def now() -> str:
    """UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cell_record(
    cell: Cell,
    outcome: Outcome | None,
    *,
    status: str,
    error: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """One record, see CONTRACT's schema; a cell without an outcome has no metrics."""
    setup, dataset = cell.setup, cell.setup.dataset(cell.seed)
    notes = dict(outcome.notes) if outcome else {}
    by_template = {"eos": "template"} if dataset.template == "model" else {}  # it ends completions itself
    if "eos" in notes:
        notes |= by_template
    algorithm = {
        "name": cell.algorithm.name,
        "config": dict(cell.config),
        "plugin": cell.info.name,
        "distribution": cell.info.distribution,
        "version": cell.info.version,
        "regulariser": list(cell.algorithm.regulariser) if cell.algorithm.regulariser else None,
    }
    if "z0" in notes:
        algorithm["z0"] = notes["z0"]
    return {
        "schema": SCHEMA,
        "key": cell.key,
        "status": status,
        "error": dict(error) if error else None,
        "algorithm": algorithm,
        "task": {
            "name": setup.name,
            "version": setup.task.version,
            "options": dict(setup.options),
            "data": {
                "source": dataset.source,
                "revision": dataset.revision,
                "kind": dataset.kind,
                "fingerprint": setup.data_fingerprint(cell.seed),
                "rows": dataset.rows or len(dataset.train) + len(dataset.heldout),
                "dropped": dict(dataset.dropped),
                **({"layout": dataset.layout, "columns": dict(dataset.columns)} if dataset.layout else {}),
                **({"notes": dict(dataset.notes)} if dataset.notes else {}),
                "train": len(dataset.train),
                "heldout": len(dataset.heldout),
                "template": dataset.template,
                **({"template_date": dataset.template_date} if dataset.template_date else {}),
                **(outcome.data if outcome else {}),
            },
            "model": dict(model) | (by_template if "eos" in model else {}),
            "budget": dump(setup.budget),
            "expected_divergence": cell.algorithm.name in setup.task.expects_divergence,
        },
        "train": {"lr": cell.lr, "optimizer": cell.optimizer}
        | ({"processes": setup.processes} if setup.processes > 1 else {}),
        "seed": cell.seed,
        "experiment": cell.experiment,
        **({"protocol": dict(cell.protocol)} if cell.protocol else {}),
        "metrics": dict(outcome.metrics) if outcome else {},
        **({"metric_definitions": {n: entry(*m) for n, m in setup.metrics.items()}} if setup.metrics else {}),
        "final_policy": outcome.final_policy if outcome else None,
        "timing": outcome.timing if outcome else {},
        "notes": notes,
        "environment": dict(environment),
        "created": now(),
    }
