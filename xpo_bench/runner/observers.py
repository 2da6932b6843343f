"""The observer hooks of every plugin, and the trackers that were asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from xpo_bench.contract.tracker import Tracker
from xpo_bench.plugins import Registry
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.run_document import PlannedCell


def facts(cell: Cell) -> PlannedCell:
    """A cell as observers and `run.json` have it."""
    return {
        "key": cell.key,
        "algorithm": cell.algorithm.name,
        "config": dict(cell.config),
        "task": cell.setup.name,
        "seed": cell.seed,
        "experiment": cell.experiment,
    }


class Observers:
    """Calls observers and trackers; what one raises stands once on stderr, and is never fatal.

    Args:
        track: names of trackers. run: the run directory.

    Raises:
        UsageError: an unknown tracker, or one that lacks what it needs.
    """

    def __init__(self, registry: Registry, track: Sequence[str], run: Path) -> None:
        self.registry = registry
        self.trackers: list[Tracker] = [registry.tracker(name)[0](run) for name in dict.fromkeys(track)]
        self._reported: set[str] = set()

    def __call__(self, hook: str, *, cell: Cell, **arguments: object) -> None:
        """Pass `xpo_run_start`, `xpo_step_end` or `xpo_run_end` on."""
        described = facts(cell)
        problems = self.registry.observe(hook, cell=described, **arguments)
        for tracker in self.trackers:
            problems += _call(tracker, hook.removeprefix("xpo_"), described, **arguments)
        self._report(problems)

    def close(self) -> None:
        """The run is over."""
        for tracker in self.trackers:
            self._report(_call(tracker, "close"))

    def _report(self, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self._reported:
                self._reported.add(problem)
                print(f"xpo-bench: {problem}", file=sys.stderr)


def _call(tracker: Tracker, method: str, *words: object, **arguments: object) -> list[str]:
    try:
        getattr(tracker, method)(*words, **arguments)
    except (Exception, SystemExit) as error:
        return [f"tracker {type(tracker).name}: {method} raised {type(error).__name__}: {error}"]
    return []
