"""The records of an evaluation: those of a run, which say what was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from xpo_bench.evaluating.results import Result
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import Error, Evaluated, Record, Status
from xpo_bench.runner.recording import cell_record
from xpo_bench.train.job import Outcome

PLUGIN = "evaluate"
"""In the place of the plugin that an algorithm is from."""
BUDGET = ("eval_pairs", "heldout_pairs", "heldout", "kl_prompts", "kl_samples", "max_new_tokens", "dtype")
"""What of a budget an evaluation has: all else would be about training."""


def evaluation_record(
    cell: Cell,
    result: Result | None,
    *,
    evaluated: Evaluated,
    model: Mapping[str, Any],
    environment: Mapping[str, object],
    status: Status = "ok",
    error: Error | None = None,
    options: Mapping[str, object],
    sizes: Mapping[str, int] | None = None,
) -> Record:
    """The record of a series of checkpoints; one without a result has no metrics."""
    outcome: Outcome | None = result.outcome if result else None
    if outcome is not None:
        status = cast(Status, outcome.status)
    record = cell_record(cell, outcome, status=status, error=error, model=model, environment=environment)
    record["algorithm"] |= {"plugin": PLUGIN, "distribution": None, "version": None}
    del record["algorithm"]["source"]
    record["train"] = {}
    budget = record["task"]["budget"]
    record["task"]["budget"] = {name: budget[name] for name in BUDGET} | dict(sizes or {})
    record["task"]["options"] |= {name: value for name, value in options.items() if value is not None}
    record["evaluated"] = evaluated
    if result is not None:
        evaluated["lost"] = result.lost
        if result.drift is not None:
            evaluated["drift_steps"] = list(result.drift)
    return record
