"""Weights & Biases runs, one per cell, offline unless `WANDB_MODE` says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from xpo_bench import Tracker, UsageError, hookimpl


class Wandb(Tracker):
    """Writes `tracking/wandb/wandb/offline-run-*`, which `wandb sync` uploads. Needs the extra `wandb`.

    Runs are grouped by task, their job type is the algorithm, the cell's key their id. Cells run side by side
    and a run of W&B is a process of its own, so what a cell measures is kept and handed over when it ends;
    one that is interrupted leaves none. `WANDB_MODE=online` and `WANDB_PROJECT` are honoured; the project is
    `xpo-bench` otherwise.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise UsageError(f"--track wandb: {error}; pip install 'xpo-bench[wandb]'") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.points: dict[str, list[tuple[int, dict[str, float]]]] = {}

    def run_start(self, cell: Mapping[str, Any]) -> None:
        self.points[cell["key"]] = []

    def step_end(self, cell: Mapping[str, Any], step: int, metrics: Mapping[str, float]) -> None:
        self.points[cell["key"]].append((step, dict(metrics)))

    def run_end(self, cell: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "xpo-bench"),
            mode=mode,
            dir=str(self.folder),
            id=cell["key"],
            name=f"{cell['algorithm']} on {cell['task']}, seed {cell['seed']}",
            group=cell["task"],
            job_type=cell["algorithm"],
            config=dict(cell["config"])
            | {name: cell[name] for name in ("algorithm", "task", "seed", "experiment")},
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        for step, metrics in self.points.pop(cell["key"], []):
            # given a step, W&B holds a row back until the next one; under load the last was lost
            tracked.log(metrics, step=step, commit=True)
        tracked.summary.update(
            {name: value for name, value in record["metrics"].items() if value is not None}
        )
        tracked.summary["status"] = record["status"]
        tracked.finish(exit_code=0 if record["status"] in ("ok", "diverged") else 1)


@hookimpl
def xpo_trackers() -> list[type[Tracker]]:
    return [Wandb]
