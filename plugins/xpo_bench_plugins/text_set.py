"""Common to the tasks on real text: policy, budget, and reading from `XPO_BENCH_DATA` or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, DataSpec, ModelSpec, Task, UnreachableError
from xpo_bench.data.dataset import load_dataset
from xpo_bench.data.sources import VARIABLE, find
from xpo_bench.data.synthetic import world_stream


@dataclass(frozen=True)
class TextSet(Task):
    """A preference set as it is: the seed changes nothing, bad rows are left out and counted."""

    source: ClassVar[str]
    """A name under `XPO_BENCH_DATA`, or a hub id."""
    version: ClassVar[str] = "2"
    model: ClassVar[ModelSpec] = ModelSpec(name="tiny", context=1024)
    # what a CPU does in a minute per cell; `--steps` grants more
    budget: ClassVar[Budget] = Budget(
        steps=40,
        batch_size=8,
        optimizer="adamw",
        lr=3e-5,
        warmup=0.1,
        clip=1.0,
        dtype="float32",
        eval_pairs=16,
        heldout_pairs=64,
    )

    rows: Annotated[
        int | None, Gt(0), Doc("first rows that are read, of each split if there are any; all by default")
    ] = None

    @property
    def spec(self) -> DataSpec:
        return DataSpec(source=self.source, rows=self.rows, on_bad_row="skip")

    def check(self) -> None:
        """Refuse a set that is to be found under `XPO_BENCH_DATA` and is not there."""
        if "/" not in self.source and find(self.source) is None:
            raise UnreachableError(
                f"{self.name}: no {self.source}.parquet to read; "
                f"set {VARIABLE} to the directory that holds it"
            )

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The set as it is; the seed changes nothing.

        Raises:
            UnreachableError: `XPO_BENCH_DATA` does not lead to the set, or the hub cannot be reached.
        """
        self.check()
        return load_dataset(self.spec, 0.0, world_stream(self.name, self.version), model)
