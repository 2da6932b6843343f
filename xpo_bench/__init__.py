"""xpo-bench: a benchmark suite for preference-optimization algorithms.

The names here are what a plugin author needs; `xpo_bench.run` is the notebook's entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpo_bench.algorithm import Algorithm
from xpo_bench.errors import UsageError
from xpo_bench.hookspecs import hookimpl
from xpo_bench.task import Task
from xpo_bench.tracker import Tracker
from xpo_bench.types import (
    Budget,
    Completion,
    Dataset,
    Group,
    ModelSpec,
    Pair,
    Scores,
    Single,
    Stage,
    Step,
    World,
)

if TYPE_CHECKING:
    from xpo_bench.evaluation import Evaluation, History, metric
    from xpo_bench.runner.api import Result, run

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Budget",
    "Completion",
    "Dataset",
    "Evaluation",
    "Group",
    "History",
    "ModelSpec",
    "Pair",
    "Result",
    "Scores",
    "Single",
    "Stage",
    "Step",
    "Task",
    "Tracker",
    "UsageError",
    "World",
    "__version__",
    "hookimpl",
    "metric",
    "run",
]


def __getattr__(name: str) -> Any:
    """Load the runner on first use, so that importing the package imports no torch, and what metrics are made of, no numpy."""
    if name in ("run", "Result"):
        from xpo_bench.runner import api

        globals()["run"], globals()["Result"] = api.run, api.Result
        return globals()[name]
    if name in ("metric", "Evaluation", "History"):
        from importlib import import_module

        return getattr(import_module("xpo_bench.evaluation"), name)
    raise AttributeError(f"module 'xpo_bench' has no attribute {name!r}")
