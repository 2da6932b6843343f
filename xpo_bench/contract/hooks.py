"""The hook specification: what a plugin may implement.

A complete plugin, to paste into a module and name by an entry point of group `xpo_bench`:

    from dataclasses import dataclass
    from typing import ClassVar
    import torch.nn.functional as F
    from xpo_bench import Algorithm, Step, hookimpl

    @dataclass(frozen=True)
    class MyDPO(Algorithm):
        name: ClassVar[str] = "my-dpo"
        beta: float = 0.1

        def loss(self, step: Step):
            return -F.logsigmoid(self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))

    @hookimpl
    def xpo_algorithms():
        return [MyDPO]

and in the plugin's pyproject.toml:

    [project.entry-points.xpo_bench]
    my-dpo = "my_package.my_dpo"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.task import Task
from xpo_bench.contract.tracker import Tracker

PROJECT = "xpo_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def xpo_algorithms() -> Iterable[type[Algorithm]]:  # type: ignore[empty-body]
    """Return the algorithm classes that this plugin offers."""


@hookspec
def xpo_tasks() -> Iterable[type[Task]]:  # type: ignore[empty-body]
    """Return the task classes that this plugin offers."""


@hookspec
def xpo_metrics() -> Iterable[Callable[..., object]]:  # type: ignore[empty-body]
    """Return the functions, marked by `xpo_bench.metric`, that measure something of every cell."""


@hookspec
def xpo_trackers() -> Iterable[type[Tracker]]:  # type: ignore[empty-body]
    """Return the tracker classes that this plugin offers to `--track`."""


@hookspec
def xpo_claims() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the TOML files of the claims that this plugin offers to `xpo-bench claims`, by their names."""


@hookspec
def xpo_run_start(cell: Mapping[str, Any]) -> None:
    """Observe that a cell starts. `cell` is its description, read only; runs off the training clock."""


@hookspec
def xpo_step_end(cell: Mapping[str, Any], step: int, metrics: Mapping[str, float]) -> None:
    """Observe an evaluation point of a cell: the step and what was measured there; off the training clock."""


@hookspec
def xpo_run_end(cell: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Observe that a cell ended, with its record; runs off the training clock."""
