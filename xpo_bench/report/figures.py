"""Figures as data: what each shows, and of which rows. Pages draw them; a terminal draws curves as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from xpo_bench.report.curves import Curves, Series, series
from xpo_bench.report.experiments.base import Data, Draw
from xpo_bench.report.format import clean
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import Sweep, sweeps_of
from xpo_bench.report.tables.columns import shares_a_clock
from xpo_bench.statistics import estimate

PANELS: Mapping[str, str] = {
    "loss": "loss (its own unit)",
    "chosen_logp": "log π chosen (nats)",
    "rejected_logp": "log π rejected (nats)",
    "margin": "margin of the log-ratios (nats)",
    "kl": "KL from the initial policy (nats)",
    "heldout_reward_accuracy": "held-out reward accuracy",
    "reward_accuracy": "training reward accuracy",
    "forget_logp": "log π forget (nats)",
    "retain_logp": "log π retain (nats)",
}
"""What a task's curves show, where they hold it."""
SWEPT = {"kl": "final KL from the initial policy (nats)", "rejected_prob": "final π(rejected), per token"}
"""What a sweep's figure shows."""


@dataclass(frozen=True, eq=False)
class TaskCurves:
    """The curves of one task's rows; nothing is read before it is asked for."""

    task: str
    groups: Sequence[SeedGroup]
    curves: Curves

    @cached_property
    def series(self) -> Mapping[SeedGroup, Mapping[str, Series]]:
        """Every row's metrics over steps and seeds."""
        return {g: series(g, self.curves) for g in self.groups}


@dataclass(frozen=True, eq=False)
class CurvesFigure:
    """One panel per quantity, one line per row of the task's table, with 95 % bands over seeds."""

    of: TaskCurves

    @property
    def caption(self) -> str:
        """What it shows."""
        return (
            f"{clean(self.of.task)}: curves over optimizer steps; bands are 95 % intervals over seeds, where "
            "they fit the panel"
        )

    @cached_property
    def rows(self) -> list[SeedGroup]:
        """The rows that have a curve."""
        return [g for g in self.of.groups if self.of.series[g]]

    @cached_property
    def panels(self) -> list[str]:
        """The metrics of which some row has more than one point; training accuracy only without held-out."""
        shown = [m for m in PANELS if any(len(self.of.series[g].get(m, ())) > 1 for g in self.rows)]
        if "heldout_reward_accuracy" in shown and "reward_accuracy" in shown:
            shown.remove("reward_accuracy")
        return shown

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.panels


@dataclass(frozen=True, eq=False)
class FrontierFigure:
    """Reward against KL in the course of training, ends marked, under the exact frontier."""

    of: TaskCurves

    @property
    def caption(self) -> str:
        """What it shows."""
        task = clean(self.of.task)
        return f"{task}: reward against KL in the course of training, under the closed-form optimum"

    @cached_property
    def rows(self) -> list[SeedGroup]:
        """The rows whose frontier is known."""
        needed = ("kl", "gold_reward", "frontier_gap")
        return [g for g in self.of.groups if g.counted and all(self.of.series[g].get(m) for m in needed)]

    @cached_property
    def exact(self) -> list[tuple[float, float]]:
        """(KL, reward) of the frontier, by KL.

        A policy's reward plus its gap is the frontier at its own KL, whoever it is: max E_ρ r over
        KL(ρ‖π_ref) ≤ kl, reached by π ∝ π_ref·exp(r/b). Seeds may weight prompts differently: this is the
        frontier of the first.
        """
        seed = min((r.seed for g in self.rows for r in g.counted), default=None)
        runs = [r for g in self.rows for r in g.counted if r.seed == seed]
        needed = ("kl", "gold_reward", "frontier_gap")
        return sorted(
            (p["kl"], p["gold_reward"] + p["frontier_gap"])
            for r in runs
            for p in self.of.curves(r.key)
            if all(p.get(m) is not None and math.isfinite(p[m]) for m in needed)
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.exact or self.exact[-1][0] <= 0


@dataclass(frozen=True, eq=False)
class SweepFigure:
    """Final KL and rejected probability of one task against the declared regulariser, by its algorithm."""

    task: str
    sweeps: Mapping[str, Sweep]

    @property
    def caption(self) -> str:
        """What it shows."""
        groups = (g for sweep in self.sweeps.values() for g, _ in sweep.members)
        note = "; dash-dotted: KL of the exact optimum" if any(map(optimum_kl, groups)) else ""
        return f"{clean(self.task)}: where training ends along the sweep of each regulariser{note}"

    @cached_property
    def panels(self) -> list[str]:
        """The metrics that are above 0 somewhere, and so on a logarithmic axis."""
        groups = [g for sweep in self.sweeps.values() for g, _ in sweep.members]
        return [m for m in SWEPT if any((e := g.estimate(m)) and e.mean > 0 for g in groups)]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.panels


@dataclass(frozen=True, eq=False)
class ThroughputFigure:
    """Bars of pairs per second of one task: rows with a clock of their own, or those that shared one."""

    task: str
    groups: Sequence[SeedGroup]
    shared: bool
    empty = False

    @property
    def caption(self) -> str:
        """What it shows."""
        if not self.shared:
            return f"{clean(self.task)}: speed of training, evaluation excluded"
        return (
            f"{clean(self.task)}: runs trained as one computation and share its clock, so that bars do not "
            "compare algorithms"
        )


@dataclass(frozen=True, eq=False)
class ExperimentFigure:
    """A figure of one of the article's experiments."""

    title: str
    stem: str
    data: Data
    draw: Draw
    empty = False

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"{self.title}: {self.stem}"


Figure = CurvesFigure | FrontierFigure | SweepFigure | ThroughputFigure | ExperimentFigure


def task_figures(task: str, groups: Sequence[SeedGroup], curves: Curves) -> list[Figure]:
    """The frontier of a task, and its curves."""
    of = TaskCurves(task, groups, curves)
    return [FrontierFigure(of), CurvesFigure(of)]


def sweep_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """A figure per task whose regularisers were swept."""
    tasks: dict[str, dict[str, Sweep]] = {}
    for sweep in sweeps_of(groups):
        first = sweep.members[0][0]
        name = f"{first.records[0].algorithm.name} ({sweep.regulariser})"
        of_task = tasks.setdefault(first.task, {})
        while name in of_task:  # the same field swept beside another one
            name += "′"
        of_task[name] = sweep
    return [SweepFigure(task, sweeps) for task, sweeps in tasks.items()]


def throughput_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Per task: first the rows with a clock of their own, then those that shared one."""
    out: list[Figure] = []
    for shared in (False, True):
        for task in dict.fromkeys(g.task for g in groups):
            timed = [g for g in groups if g.task == task and g.estimate("pairs_per_s")]
            if part := [g for g in timed if shares_a_clock([g]) == shared]:
                out.append(ThroughputFigure(task, part, shared))
    return out


def optimum_kl(g: SeedGroup) -> float | None:
    """KL of the exact optimum of a row's objective, where it is known."""
    over_seeds = estimate(r.notes.optimum_kl for r in g.counted)
    return over_seeds.mean if over_seeds and over_seeds.mean > 0 else None
