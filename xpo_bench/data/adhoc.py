"""The task that `--data` makes of any preference set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, MinLen
from typing_extensions import Doc

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import Budget, DataSpec, ModelSpec
from xpo_bench.contract.task import Task
from xpo_bench.data.dataset import load_dataset
from xpo_bench.random_streams import stream

TABULAR_BUDGET = Budget(anneal=0.5)
"""Of more rows than a batch takes, a constant rate would end up to .03 from the optimum, which is known."""
LM_BUDGET = Budget(
    steps=200,
    batch_size=8,
    optimizer="adamw",
    lr=1e-4,
    warmup=0.1,
    clip=1.0,
    dtype="float32",
    eval_pairs=32,
    heldout_pairs=64,
)


@dataclass(frozen=True)
class AdHoc(Task):
    """A preference set from a file, a name under XPO_BENCH_DATA or a hub id."""

    name: ClassVar[str] = "data"
    budget: ClassVar[Budget] = TABULAR_BUDGET
    lm_budget: ClassVar[Budget | None] = LM_BUDGET

    source: Annotated[str, Doc("file, name under XPO_BENCH_DATA, or hub id")] = ""
    world: Annotated[str | None, Doc("side file with reference and reward per prompt")] = None
    rows: Annotated[
        int | None, Gt(0), Doc("first rows that are read, of each split if there are any; all by default")
    ] = None
    on_bad_row: Annotated[Literal["error", "skip"], Doc("refuse the set, or skip and count bad rows")] = (
        "error"
    )
    heldout: Annotated[float, Doc("fraction of rows held out of a set whose split column holds out none")] = (
        0.0
    )
    split_by: Annotated[
        str,
        MinLen(1),
        Doc("hold out whole prompts, rows whatever their prompt, or all rows of values of a column"),
    ] = "prompt"
    columns: Annotated[Mapping[str, str] | None, Doc("name that a layout reads -> column of the set")] = None
    rankings: Annotated[
        Literal["all", "best"] | None,
        Doc("all pairs of a ranking (the default), or its best answer against each other one"),
    ] = None

    strength: Annotated[str | None, Doc("log-odds of a preference of strength 1, and its centre")] = None

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The rows of the set; a held-out fraction is drawn once for all seeds."""
        return load_dataset(self.spec, self.heldout, stream(0, task_name(self.source), "data"), model)

    @property
    def spec(self) -> DataSpec:
        """How the rows are read."""
        return DataSpec(
            source=self.source,
            world=self.world,
            rows=self.rows,
            on_bad_row=self.on_bad_row,
            columns=self.columns,
            rankings=self.rankings or "all",
            strength=self.strength,
            split_by=self.split_by,
        )


def task_name(source: str) -> str:
    """A task name from a data source: the file's stem or the hub id, in the letters that names allow."""
    path = Path(source)
    return as_name(path.stem if path.suffix else source) or "data"


def as_name(text: str) -> str:
    """A text in the letters that names allow, as it is where it has no others."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
