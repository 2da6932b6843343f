"""The record of a cell, built from what was planned and what became of it. Nothing else builds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.metric import Metric
from xpo_bench.plugins import PluginInfo
from xpo_bench.runner import keys
from xpo_bench.runner.algorithm_files import shown
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import (
    SCHEMA,
    AlgorithmOf,
    Data,
    Error,
    MetricOf,
    Record,
    SplitOverlap,
    Status,
    Timing,
    now,
)
from xpo_bench.runner.saved_policies import saved_policy
from xpo_bench.runner.settings import dump
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.train.job import Outcome


def cell_record(
    cell: Cell,
    outcome: Outcome | None,
    *,
    status: Status,
    error: Error | None,
    model: Mapping[str, object],
    environment: Mapping[str, object],
) -> Record:
    """The record of a cell; one without an outcome has no metrics."""
    setup, dataset = cell.setup, cell.setup.dataset(cell.seed)
    notes, model = dict(outcome.notes) if outcome else {}, dict(model)
    if dataset.template == "model":  # the chat template ends completions itself, the suite adds no token
        notes |= {"eos": "template"} if "eos" in notes else {}
        model |= {"eos": "template"} if "eos" in model else {}
    record: Record = {
        "schema": SCHEMA,
        "key": cell.key,
        "status": status,
        "error": error,
        "algorithm": _algorithm(cell, notes),
        "task": {
            "name": setup.name,
            "version": setup.task.version,
            "source": keys.source(type(setup.task)),
            "options": dict(setup.options),
            "data": _data(cell, dataset, outcome),
            "model": model,
            "budget": dump(setup.budget),
            "expected_divergence": cell.algorithm.name in setup.task.expects_divergence,
        },
        "train": {"lr": cell.lr, "optimizer": cell.optimizer},
        "labels": setup.budget.labels,
        "seed": cell.seed,
        "experiment": cell.experiment,
        "suite": cell.suite,
        "metrics": dict(outcome.metrics) if outcome else {},
        "final_policy": outcome.final_policy if outcome else None,
        "timing": cast(Timing, outcome.timing) if outcome else {},
        "notes": notes,
        "environment": dict(environment),
        "created": now(),
    }
    if blind := _cannot_see(setup, dataset):
        record["task"]["cannot_see"] = blind
    if outcome and outcome.status == "ok" and (saved := saved_policy(cell)):
        record["saved_policy"] = str(saved.folder)
    if setup.processes > 1:
        record["train"]["processes"] = setup.processes
    if cell.protocol:
        record["protocol"] = cell.protocol
    if cell.checkpoint:
        record["checkpoint"] = cell.checkpoint
    if setup.metrics:
        record["metric_definitions"] = {name: _metric(*entry) for name, entry in setup.metrics.items()}
    return record


def _cannot_see(setup: TaskSetup, dataset: Dataset) -> str:
    told = setup.task.blind_to(setup.model)
    # what is said of a tabular policy where a task says nothing does not hold in a world with lengths
    lengths = dataset.world is not None and bool(dataset.world.lengths or dataset.world.tokens)
    return "" if lengths and not setup.task.cannot_see else told


def _algorithm(cell: Cell, notes: Mapping[str, Any]) -> AlgorithmOf:
    algorithm: AlgorithmOf = {
        "name": cell.algorithm.name,
        "config": dict(cell.config),
        "plugin": cell.info.name,
        "distribution": cell.info.distribution,
        "version": cell.info.version,
        "source": keys.source(type(cell.algorithm)),
        "regulariser": cast(tuple[str, Literal[-1, 1]] | None, cell.algorithm.regulariser),
    }
    if named := shown(type(cell.algorithm)):
        algorithm["file"] = named
    if "z0" in notes:
        algorithm["z0"] = notes["z0"]
    if cell.algorithm.paper:
        algorithm["paper"] = cell.algorithm.paper
    return algorithm


def _data(cell: Cell, dataset: Dataset, outcome: Outcome | None) -> Data:
    data: Data = {
        "source": dataset.source,
        "revision": dataset.revision,
        "kind": dataset.kind,
        "fingerprint": cell.setup.data_fingerprint(cell.seed),
        "rows": dataset.rows or len(dataset.train) + len(dataset.heldout),
        "dropped": dict(dataset.dropped),
        "train": len(dataset.train),
        "heldout": len(dataset.heldout),
        "template": dataset.template,
    }
    if dataset.heldout:
        data["split_overlap"] = cast(SplitOverlap, cell.setup.overlap(cell.seed)._asdict())
    if dataset.layout:
        data |= {"layout": dataset.layout, "columns": dict(dataset.columns)}
    if dataset.notes:
        data["notes"] = dict(dataset.notes)
    if dataset.template_date:
        data["template_date"] = dataset.template_date
    if outcome:  # what became of the rows in the context of a language model
        data |= cast(Data, outcome.data)
    return data


def _metric(metric: Metric, info: PluginInfo) -> MetricOf:
    """What readers of a record need, to print and compare the metric of a plugin that they lack."""
    return {
        "unit": metric.unit,
        "better": metric.better,
        "definition": metric.doc,
        "plugin": info.name,
        "distribution": info.distribution,
        "version": info.version,
    }
