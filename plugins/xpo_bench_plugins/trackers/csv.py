"""One csv file per cell: a row per evaluation and metric, and the final metrics at the end."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from xpo_bench import Tracker, hookimpl

COLUMNS = ("algorithm", "task", "seed", "step", "metric", "value")


class CsvFiles(Tracker):
    """Writes `tracking/csv/KEY.csv` with the columns algorithm, task, seed, step, metric, value.

    The step of a final metric is `final`. Files can be read while a cell runs, and put below one another.
    """

    name: ClassVar[str] = "csv"

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.folder.mkdir(parents=True, exist_ok=True)

    def run_start(self, cell: Mapping[str, Any]) -> None:
        self._write(cell, [COLUMNS], "w")

    def step_end(self, cell: Mapping[str, Any], step: int, metrics: Mapping[str, float]) -> None:
        self._write(cell, [(*_who(cell), step, name, repr(value)) for name, value in sorted(metrics.items())])

    def run_end(self, cell: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        finals = sorted(record["metrics"].items())
        self._write(
            cell,
            [(*_who(cell), "final", name, "" if value is None else repr(value)) for name, value in finals],
        )

    def _write(self, cell: Mapping[str, Any], rows: Iterable[Iterable[Any]], mode: str = "a") -> None:
        with (self.folder / f"{cell['key']}.csv").open(mode, encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


def _who(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["algorithm"], cell["task"], cell["seed"]


@hookimpl
def xpo_trackers() -> list[type[Tracker]]:
    return [CsvFiles]
