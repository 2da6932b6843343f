"""Which rows and columns of a run are shown, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import better
from xpo_bench.report.records import Record
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.verdicts.task import TaskVerdict


@dataclass(frozen=True)
class View:
    """What of a run is shown; all of it by default, sorted by the verdicts.

    Args:
        algos, tasks: names, or patterns such as `*po`. columns: metrics of the tables of tasks, in this
            order. sort: a metric to sort rows by, or `name`.
    """

    algos: Sequence[str] = ()
    tasks: Sequence[str] = ()
    columns: Sequence[str] = ()
    sort: str | None = None

    def records(self, records: Sequence[Record]) -> list[Record]:
        """The records that are shown.

        Raises:
            UsageError: a name fits nothing, in one line that says what is there.
        """
        names = list(dict.fromkeys(r.algorithm.name for r in records))
        tasks = list(dict.fromkeys(r.task.name for r in records))
        algos, where = _chosen("--algos", self.algos, names), _chosen("--tasks", self.tasks, tasks)
        for option, wanted in (("--columns", self.columns), ("--sort", [self.sort] if self.sort else [])):
            for name in wanted:
                if not any(name in r.metrics for r in records) and (option, name) != ("--sort", "name"):
                    known = list(dict.fromkeys(metric for r in records for metric in r.metrics))
                    raise UsageError(f"{option}: {unknown('metric of this run', name, known)}")
        return [r for r in records if r.algorithm.name in algos and r.task.name in where]

    def by_task(self, groups: Iterable[SeedGroup]) -> dict[str, list[SeedGroup]]:
        """Task -> its rows, in the order of the tasks."""
        out: dict[str, list[SeedGroup]] = {}
        for g in groups:
            out.setdefault(g.task, []).append(g)
        return out

    def ordered(self, groups: Sequence[SeedGroup], verdicts: Sequence[TaskVerdict]) -> list[SeedGroup]:
        """The rows of every task, best first, or by what was asked for."""
        place = {row.group: i for v in verdicts for i, row in enumerate(v.rows)}
        out: list[SeedGroup] = []
        for rows in self.by_task(groups).values():
            if self.sort is None:
                out += sorted(rows, key=lambda g: place.get(g, 0))
            elif self.sort == "name":
                out += sorted(rows, key=lambda g: g.label)
            else:
                out += sorted(rows, key=lambda g: _by(g, str(self.sort)))
        return out


def _by(g: SeedGroup, metric: str) -> tuple[bool, float]:
    """Best first, rows without the metric last."""
    mean = g.estimate(metric)
    if mean is None:
        return True, 0.0
    return False, -mean.mean if better(metric) == "higher" else mean.mean


def _chosen(option: str, patterns: Sequence[str], known: Sequence[str]) -> set[str]:
    """The known names that fit some pattern; all of them without any."""
    out: set[str] = set()
    for pattern in patterns:
        fitting = [name for name in known if name == pattern or fnmatch(name, pattern)]
        if not fitting:
            raise UsageError(f"{option}: {unknown('name in this run', pattern, known)}")
        out.update(fitting)
    return out if patterns else set(known)
