"""Those who watch a run: the observer hooks of every plugin, and the trackers that were asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench.contract.tracker import Tracker
from xpo_bench.plugins import Registry


def facts(cell: Any) -> dict[str, Any]:
    """A cell as observers see it."""
    return {
        "key": cell.key,
        "algorithm": cell.algorithm.name,
        "config": dict(cell.config),
        "task": cell.setup.name,
        "seed": cell.seed,
        "experiment": cell.experiment,
    }


class Observers:
    """Tells observers and trackers; what one raises is told once on stderr, and never fatal.

    Args:
        track: names of trackers. run: the run directory.

    Raises:
        UsageError: an unknown tracker, or one that lacks what it needs.
    """

    def __init__(self, registry: Registry, track: Sequence[str], run: Path) -> None:
        self.registry = registry
        self.trackers: list[Tracker] = [registry.tracker(name)[0](run) for name in dict.fromkeys(track)]
        self._told: set[str] = set()

    def __call__(self, hook: str, *, cell: Any, **arguments: Any) -> None:
        """Pass `xpo_run_start`, `xpo_step_end` or `xpo_run_end` on."""
        described: Mapping[str, Any] = facts(cell)
        problems = self.registry.observe(hook, cell=described, **arguments)
        for tracker in self.trackers:
            problems += _call(tracker, hook.removeprefix("xpo_"), described, **arguments)
        self._tell(problems)

    def close(self) -> None:
        """The run is over."""
        for tracker in self.trackers:
            self._tell(_call(tracker, "close"))

    def _tell(self, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                print(f"xpo-bench: {problem}", file=sys.stderr)


def _call(tracker: Tracker, method: str, *words: Any, **arguments: Any) -> list[str]:
    try:
        getattr(tracker, method)(*words, **arguments)
    except (Exception, SystemExit) as error:
        return [f"tracker {type(tracker).name}: {method} raised {type(error).__name__}: {error}"]
    return []
