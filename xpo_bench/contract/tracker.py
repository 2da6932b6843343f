"""Tracker: follows the cells of a run while they run, where `--track NAME` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class Tracker:
    """Follows a run while it runs; every method may be left out.

    One instance follows one run, in the process that writes its records. Cells that train as one computation
    run side by side, so what belongs to a cell is kept by its `key`. What a method raises is reported, and
    changes nothing else; the training clock does not run.

    Args:
        run: the run directory. A tracker that writes files keeps them in `self.folder`, below it.

    Raises:
        UsageError: in the constructor, before anything is run: what the tracker needs is missing.
    """

    name: ClassVar[str]

    def __init__(self, run: Path) -> None:
        self.run = run
        self.folder = run / "tracking" / type(self).name

    def run_start(self, cell: Mapping[str, Any]) -> None:
        """A cell starts, or starts again: `key`, `algorithm`, `config`, `task`, `seed`, `experiment`."""

    def step_end(self, cell: Mapping[str, Any], step: int, metrics: Mapping[str, float]) -> None:
        """A cell has been evaluated at a step."""

    def run_end(self, cell: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """A cell has ended, with its record."""

    def close(self) -> None:
        """The run is over, or interrupted."""
