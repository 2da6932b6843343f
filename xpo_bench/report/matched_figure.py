"""The figure of what algorithms have earned at equal KL, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from xpo_bench.report.format import clean
from xpo_bench.report.render.style import SPEAKING
from xpo_bench.report.tables.equal_cost import MatchedMetrics
from xpo_bench.statistics import Estimate

Points = Sequence[tuple[float, Estimate]]
"""(KL in nats, the metric there over seeds), by KL."""


@dataclass(frozen=True, eq=False)
class MatchedFigure:
    """The metric of one task where the path of every row first reaches a KL; without those that never do.

    Args:
        matched: the rows of the task.
    """

    task: str
    matched: Sequence[MatchedMetrics]

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"{clean(self.task)}: {self.metric or 'nothing'} where training first reaches a KL"

    @cached_property
    def rows(self) -> dict[str, Points]:
        """Label of a row -> its points, of rows that have any, the first eight of them."""
        found = {
            m.group.label: [(kl, e) for kl, e in sorted(m.at_kl.items()) if e is not None]
            for m in self.matched
            if m.metric == self.metric
        }
        return dict([(label, points) for label, points in found.items() if points][:SPEAKING])

    @property
    def metric(self) -> str | None:
        """What is compared: that of the first row that has one."""
        return next((m.metric for m in self.matched if m.metric and any(m.at_kl.values())), None)

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return [m.group.algorithm for m in self.matched if m.group.label in self.rows]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.rows


def matched_figures(matched: Sequence[MatchedMetrics]) -> list[MatchedFigure]:
    """A figure per task, in order."""
    tasks = dict.fromkeys(m.group.task for m in matched)
    return [MatchedFigure(task, [m for m in matched if m.group.task == task]) for task in tasks]
