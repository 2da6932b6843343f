"""Figures as data: what each shows, and of which rows. Pages draw them; a terminal draws curves as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.figure_data import csv_of, of_estimates, of_rows
from xpo_bench.report.format import clean
from xpo_bench.report.render.style import SPEAKING
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import Sweep, sweeps_of
from xpo_bench.report.task_figures import CurvesFigure, FrontierFigure, LossFigure, TaskCurves
from xpo_bench.statistics import estimate

if TYPE_CHECKING:
    from xpo_bench.report.experiments.base import Data, Plot

SWEPT = {"kl": "final KL (nats)", "rejected_prob": "final π(rejected), per token"}
"""What a sweep's figure shows."""


@dataclass(frozen=True, eq=False)
class SweepFigure:
    """Final KL and rejected probability of one task against the declared regulariser, by its algorithm."""

    task: str
    sweeps: Mapping[str, Sweep]

    @property
    def caption(self) -> str:
        """What it shows."""
        groups = (g for sweep in self.sweeps.values() for g, _ in sweep.members)
        note = "; dotted: KL of the exact optimum" if any(map(optimum_kl, groups)) else ""
        return f"{clean(self.task)}: where training ends along the sweep of each regulariser{note}"

    @cached_property
    def panels(self) -> list[str]:
        """The metrics that are above 0 somewhere, and so on a logarithmic axis."""
        groups = [g for sweep in self.sweeps.values() for g, _ in sweep.members]
        return [m for m in SWEPT if any((e := g.estimate(m)) and e.mean > 0 for g in groups)]

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return [sweep.members[0][0].algorithm for sweep in self.sweeps.values()][:SPEAKING]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.panels

    @property
    def data(self) -> str:
        """Its numbers as CSV."""
        return csv_of(
            of_estimates(
                SWEPT[m],
                ("sweep", "regulariser"),
                [((name, v), g.estimate(m)) for name, s in self.sweeps.items() for g, v in s.members],
            )
            for m in self.panels
        )


@dataclass(frozen=True, eq=False)
class ThroughputFigure:
    """Bars of pairs per second of one task: rows with a clock of their own, of which there are several."""

    task: str
    groups: Sequence[SeedGroup]
    empty = False

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return [g.algorithm for g in self.groups[:SPEAKING]]

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"{clean(self.task)}: speed of training, evaluation excluded"

    @property
    def data(self) -> str:
        """Its numbers as CSV."""
        return csv_of(
            of_estimates(m, ("row",), [((g.label,), g.estimate(m)) for g in self.groups])
            for m in ("pairs_per_s", "overhead")
        )


@dataclass(frozen=True, eq=False)
class ExperimentFigure:
    """A figure of one of the article's experiments."""

    title: str
    plot: Plot
    rows: Data

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"{self.title}: {self.plot.caption(self.rows)}"

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return list(self.plot.speaking(self.rows))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.rows[self.plot.data[0]]

    @property
    def data(self) -> str:
        """Its numbers as CSV, those of the files beside the figure."""
        return csv_of(of_rows(name, self.rows[name]) for name in self.plot.data)


Figure = CurvesFigure | LossFigure | FrontierFigure | SweepFigure | ThroughputFigure | ExperimentFigure


def task_figures(
    task: str, groups: Sequence[SeedGroup], curves: Curves, speaking: Sequence[str] | None = None
) -> list[Figure]:
    """The frontier of a task, its curves and its losses.

    Args:
        speaking: labels of rows or names of algorithms, the most telling first, of which the first eight rows
            have colours and labels; by default the first rows that there are.
    """
    of = TaskCurves(task, groups, curves, speaking)
    return [FrontierFigure(of), CurvesFigure(of), LossFigure(of)]


def sweep_figures(groups: Sequence[SeedGroup], speaking: Sequence[str] | None = None) -> list[Figure]:
    """A figure per task whose regularisers were swept.

    Args:
        speaking: names of algorithms whose sweeps come first, of which eight speak.
    """
    tasks: dict[str, dict[str, Sweep]] = {}
    order = list(speaking or ())
    # a stable order: sweeps that nobody asked for stay as they are
    for sweep in sorted(sweeps_of(groups), key=lambda s: _place(order, s.members[0][0].algorithm)):
        first = sweep.members[0][0]
        name = f"{first.algorithm} ({sweep.regulariser})"
        of_task = tasks.setdefault(first.task, {})
        while name in of_task:  # the same field swept beside another one
            name += "′"
        of_task[name] = sweep
    return [SweepFigure(task, sweeps) for task, sweeps in tasks.items()]


def _place(order: Sequence[str], name: str) -> int:
    """Where a name stands; those that are not there stand behind all others."""
    return order.index(name) if name in order else len(order)


def throughput_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Per task the rows with a clock of their own, where there are several to compare.

    Rows that trained as one computation have one speed, which says nothing about any of them.
    """
    out: list[Figure] = []
    for task in dict.fromkeys(g.task for g in groups):
        timed = [g for g in groups if g.task == task and g.estimate("pairs_per_s") and not g.shares_a_clock]
        if len(timed) > 1:
            out.append(ThroughputFigure(task, timed))
    return out


def optimum_kl(g: SeedGroup) -> float | None:
    """KL of the exact optimum of a row's objective, where it is known."""
    over_seeds = estimate(r.notes.optimum_kl for r in g.counted)
    return over_seeds.mean if over_seeds and over_seeds.mean > 0 else None
