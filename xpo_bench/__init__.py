"""xpo-bench: a benchmark suite for preference-optimization algorithms.

The names here are what a plugin author needs; `xpo_bench.run` is the notebook's entry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xpo_bench.contract.algorithm import Algorithm, Tools
from xpo_bench.contract.examples import Completion, Dataset, Example, Pair, Single, World
from xpo_bench.contract.hooks import hookimpl
from xpo_bench.contract.scoring import Group, Scores, Step, logsigmoid
from xpo_bench.contract.settings import Budget, DataSpec, ModelSpec, Stage
from xpo_bench.contract.task import ONE_TOKEN, Task
from xpo_bench.contract.tracker import Tracker
from xpo_bench.errors import DataError, UnreachableError, UsageError
from xpo_bench.version import __version__

if TYPE_CHECKING:
    from xpo_bench.api import evaluate, run
    from xpo_bench.contract.metric import TIE, Evaluation, History, metric
    from xpo_bench.data.registered import register_task
    from xpo_bench.random_streams import stream
    from xpo_bench.result import Result, load

_LAZY = {
    "run": "xpo_bench.api",
    "evaluate": "xpo_bench.api",
    "Result": "xpo_bench.result",
    "load": "xpo_bench.result",
    "register_task": "xpo_bench.data.registered",
    "metric": "xpo_bench.contract.metric",
    "Evaluation": "xpo_bench.contract.metric",
    "History": "xpo_bench.contract.metric",
    "TIE": "xpo_bench.contract.metric",
    "stream": "xpo_bench.random_streams",
}
"""Public name -> its module, for names whose modules take long to import."""

__all__ = [
    "ONE_TOKEN",
    "TIE",
    "Algorithm",
    "Budget",
    "Completion",
    "DataError",
    "DataSpec",
    "Dataset",
    "Evaluation",
    "Example",
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
    "Tools",
    "Tracker",
    "UnreachableError",
    "UsageError",
    "World",
    "__version__",
    "evaluate",
    "hookimpl",
    "load",
    "logsigmoid",
    "metric",
    "register_task",
    "run",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY` on first use: importing the package alone imports neither torch nor numpy."""
    if name in _LAZY:
        globals()[name] = getattr(import_module(_LAZY[name]), name)
        return globals()[name]
    raise AttributeError(f"module 'xpo_bench' has no attribute {name!r}")
