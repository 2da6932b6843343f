"""Many runs at a time: adapters on one model, copies of a small one; and one run twice, bit for bit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch

import xpo_bench
from benchmarks.ensembles import step_ms
from benchmarks.gpu.sizes import FULL, SMALL, Place
from xpo_bench import Budget, Dataset, ModelSpec, Task
from xpo_bench.metrics.throughput import MEASURED
from xpo_bench.result import Result

BATCH, STEPS = 4, 8


@dataclass(frozen=True)
class RandomText(Task):
    """DPO on random text, on a model of 135 million random weights."""

    name: ClassVar[str] = "random_text"
    version: ClassVar[str] = "1"
    model: ClassVar[ModelSpec] = FULL.swept
    budget: ClassVar[Budget] = Budget(
        steps=STEPS,
        batch_size=BATCH,
        optimizer="adam",
        lr=1e-4,
        dtype="bfloat16",
        eval_pairs=BATCH,
        heldout_pairs=1,
        kl_prompts=1,
        kl_samples=1,
        max_new_tokens=1,
    )

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        sizes = FULL if model.hidden_size == FULL.swept.hidden_size else SMALL
        return Dataset(train=sizes.pairs(BATCH * STEPS))


@dataclass(frozen=True)
class SmallRandomText(RandomText):
    """The same at the sizes of a rehearsal."""

    name: ClassVar[str] = "small_random_text"
    model: ClassVar[ModelSpec] = SMALL.swept


def task_for(device: str) -> type[RandomText]:
    """The task of a measurement or of a rehearsal."""
    return SmallRandomText if device == "cpu" else RandomText


def adapters(place: Place) -> None:
    """N values of β with adapters of rank 8 in one command, against N times one value.

    Not seeds: a model of random weights is another one for each.
    """
    one: float | None = None
    for runs in place.sizes.runs:
        if place.device == "cuda":  # what was freed is no part of the next peak
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory(prefix="xpo-bench-adapters-") as folder:
            begun = time.perf_counter()
            result = xpo_bench.run(
                ["dpo"],
                [task_for(place.device)],
                seeds=1,
                lora="r=8",
                set={"dpo.beta": [0.01 * (i + 1) for i in range(runs)], "task.ensemble": runs},
                device=place.device,
                out=folder,
            )
            wall = time.perf_counter() - begun
        cells = finished(result)
        # cells that train as one computation each report what all of them took
        spent = sum(cell["timing"]["train_s"] / cell["timing"]["vectorised_runs"] for cell in cells)
        one = spent if one is None else one
        place.note(
            runs=runs,
            adapters=cells[0]["task"]["model"].get("adapters"),
            trained_together=max(cell["timing"]["vectorised_runs"] for cell in cells),
            wall_s=wall,
            train_s=spent,
            ratio=runs * one / spent,
            peak_mb=torch.cuda.max_memory_allocated() / 1e6 if place.device == "cuda" else None,
        )


def ensembles(place: Place) -> None:
    """Copies of `overfit_pair`'s model in the time of one: see benchmarks/ensembles.py."""
    for copies in place.sizes.copies:
        alone, together = (step_ms(count, place.sizes.steps, place.device) for count in (1, copies))
        place.note(
            copies=copies, step_ms_one=alone, step_ms_ensemble=together, ratio=copies * alone / together
        )


def deterministic(place: Place) -> None:
    """Two runs with --deterministic, and one without.

    Raises:
        SystemExit: the two differ.
    """
    found: list[list[str]] = []
    for number, strict in enumerate((True, True, False)):
        with tempfile.TemporaryDirectory(prefix="xpo-bench-deterministic-") as folder:
            result = xpo_bench.run(
                ["dpo", "kto"],
                [task_for(place.device), "bandit"],
                seeds=1,
                steps=STEPS,
                device=place.device,
                deterministic=strict,
                out=folder,
            )
            cells = finished(result)
            found.append([everything(cell, Path(folder)) for cell in cells])
        place.note(
            run=number + 1,
            deterministic=strict,
            cells=len(cells),
            train_s=sum(cell["timing"]["train_s"] for cell in cells),
            equal_to_the_first=found[-1] == found[0],
        )
    if found[0] != found[1]:
        raise SystemExit("two runs with --deterministic differ")


def finished(result: Result) -> list[Mapping[str, Any]]:
    """The cells of a run.

    Raises:
        SystemExit: one is not ok, or there is none.
    """
    cells: list[Any] = list(result.cells)
    bad = [cell["error"] for cell in cells if cell["status"] != "ok"]
    if bad or not cells:
        raise SystemExit(f"{len(bad)} of {len(cells)} cells failed, the first with {bad[:1]}")
    return cells


def everything(cell: Mapping[str, Any], run: Path) -> str:
    """Metrics and curve of a cell without what is timed, as text that is equal only for equal bits."""
    metrics = {name: value for name, value in cell["metrics"].items() if name not in MEASURED}
    curve = pd.read_parquet(run / "curves" / f"{cell['key']}.parquet").drop(
        columns=[*MEASURED], errors="ignore"
    )
    return repr((cell["algorithm"]["name"], cell["task"]["name"], metrics, curve.to_dict("list")))
