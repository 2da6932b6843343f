"""The figures of a task as data: its frontier, its curves and its losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from xpo_bench.report.curves import Curves, Series, series
from xpo_bench.report.figure_data import Block, csv_of, of_series
from xpo_bench.report.format import clean, counted
from xpo_bench.report.frontier import Plane, frontier
from xpo_bench.report.render.style import SPEAKING
from xpo_bench.report.runs import SeedGroup

PANELS: Mapping[str, str] = {
    "kl": "KL from the initial policy (nats)",
    "chosen_logp": "log π chosen (nats)",
    "rejected_logp": "log π rejected (nats)",
    "margin": "margin of the log-ratios (nats)",
    "heldout_reward_accuracy": "held-out reward accuracy",
    "reward_accuracy": "training reward accuracy",
    "forget_logp": "log π forget (nats)",
    "retain_logp": "log π retain (nats)",
}
"""What a task's curves show, where they hold it."""
PLANE = ("kl", "gold_reward", "frontier_gap")


@dataclass(frozen=True, eq=False)
class TaskCurves:
    """The curves of one task's rows; nothing is read before it is asked for.

    Args:
        asked: labels of rows, or names of algorithms, that are to speak; by default the first rows.
    """

    task: str
    groups: Sequence[SeedGroup]
    curves: Curves
    asked: Sequence[str] | None = None

    @cached_property
    def series(self) -> Mapping[SeedGroup, Mapping[str, Series]]:
        """Every row's metrics over steps and seeds."""
        return {g: series(g, self.curves) for g in self.groups}

    def speaking(self, rows: Sequence[SeedGroup]) -> list[SeedGroup]:
        """Those of the rows that speak, at most eight."""
        asked = [g for name in self.asked or () for g in rows if name in (g.label, g.algorithm)]
        return list(dict.fromkeys(asked or rows))[:SPEAKING]


@dataclass(frozen=True, eq=False)
class CurvesFigure:
    """One panel per quantity, one line per row of the task's table, with 95 % bands over seeds."""

    of: TaskCurves

    @property
    def caption(self) -> str:
        """What it shows."""
        parts = [f"{clean(self.of.task)}: curves over optimizer steps"]
        if any(len(g.counted) > 1 for g in self.rows):
            parts.append("bands are 95 % intervals over seeds, where they fit the panel")
        if any(map(closed_form, self.rows)):
            parts.append("a closed form is a level line")
        return "; ".join([*parts, *_greys(self.rows, self.speaking)])

    @cached_property
    def rows(self) -> list[SeedGroup]:
        """The rows that have a curve."""
        return [g for g in self.of.groups if self.of.series[g]]

    @cached_property
    def speaking(self) -> list[SeedGroup]:
        """The rows that speak."""
        return self.of.speaking(self.rows)

    @cached_property
    def panels(self) -> list[str]:
        """The metrics of which some row has more than one point; training accuracy only without held-out."""
        shown = [m for m in PANELS if any(len(self.of.series[g].get(m, ())) > 1 for g in self.rows)]
        if "heldout_reward_accuracy" in shown and "reward_accuracy" in shown:
            shown.remove("reward_accuracy")
        return shown

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return [g.algorithm for g in self.speaking]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.panels

    @property
    def data(self) -> str:
        """Its numbers as CSV."""
        return csv_of(
            of_series(PANELS[m], {g.label: self.of.series[g].get(m, {}) for g in self.rows})
            for m in self.panels
        )


@dataclass(frozen=True, eq=False)
class LossFigure:
    """A panel per algorithm: losses have units of their own."""

    of: TaskCurves

    @property
    def caption(self) -> str:
        """What it shows."""
        return (
            f"{clean(self.of.task)}: whether the loss still falls, or jumps; losses differ in their units, "
            "so that each algorithm has axes of its own"
        )

    @cached_property
    def panels(self) -> Mapping[str, Sequence[SeedGroup]]:
        """Algorithm -> its rows that have a curve of the loss, of the rows that speak."""
        out: dict[str, list[SeedGroup]] = {}
        for g in self.of.speaking([g for g in self.of.groups if self.of.series[g]]):
            if len(self.of.series[g].get("loss", ())) > 1:
                out.setdefault(g.algorithm, []).append(g)
        return out

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return list(self.panels)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.panels

    @property
    def data(self) -> str:
        """Its numbers as CSV."""
        return csv_of(
            of_series(f"loss of {name}", {g.label: self.of.series[g]["loss"] for g in rows})
            for name, rows in self.panels.items()
        )


@dataclass(frozen=True, eq=False)
class FrontierFigure:
    """Reward against KL in the course of training, ends marked, under the exact frontier."""

    of: TaskCurves

    @property
    def caption(self) -> str:
        """What it shows."""
        parts = [
            f"{clean(self.of.task)}: reward against KL in the course of training, up to the mark",
            "thick: the exact frontier, π ∝ π_ref·exp(r/b) at every b",
        ]
        if any(map(closed_form, self.rows)):
            parts.append("a closed form is its mark alone")
        return "; ".join([*parts, *_greys(self.rows, self.speaking)])

    @cached_property
    def rows(self) -> list[SeedGroup]:
        """The rows whose frontier is known."""
        return [g for g in self.of.groups if g.counted and all(self.of.series[g].get(m) for m in PLANE)]

    @cached_property
    def speaking(self) -> list[SeedGroup]:
        """The rows that speak."""
        return self.of.speaking(self.rows)

    @cached_property
    def paths(self) -> Mapping[SeedGroup, list[Plane]]:
        """Row -> (KL, reward) at its evaluations, means over seeds; of a closed form only the last."""
        out = {}
        for g in self.rows:
            kl, reward = (self.of.series[g][m] for m in PLANE[:2])
            path = [(kl[step][0], reward[step][0]) for step in kl if step in reward]
            out[g] = path[-1:] if closed_form(g) else path
        return out

    @cached_property
    def exact(self) -> list[Plane]:
        """(KL, reward) of the frontier, by KL.

        A policy's reward plus its gap is the frontier at its own KL, whoever it is: max E_ρ r over
        KL(ρ‖π_ref) ≤ kl, reached by π ∝ π_ref·exp(r/b). Seeds may weight prompts differently: this is the
        frontier of their mean.
        """
        by_seed: dict[int, list[Plane]] = {}
        known: dict[SeedGroup, list[int]] = {}
        for g in self.rows:
            for r in g.counted:
                points = [
                    (p["kl"], p["gold_reward"] + p["frontier_gap"])
                    for p in self.of.curves(r.key)
                    if all(p.get(m) is not None and math.isfinite(p[m]) for m in PLANE)
                ]
                if points:
                    by_seed.setdefault(r.seed, []).extend(points)
                    known.setdefault(g, []).append(r.seed)
        return frontier(by_seed, known.values())

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that speak in it."""
        return [g.algorithm for g in self.speaking]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.exact or self.exact[-1][0] <= 0

    @property
    def data(self) -> str:
        """Its numbers as CSV."""
        header = ("row", "kl", "reward")
        rows = [(g.label, *p) for g, path in self.paths.items() for p in path]
        return csv_of([Block("paths", header, rows), Block("exact frontier", header[1:], self.exact)])


def closed_form(g: SeedGroup) -> bool:
    """Whether no step has changed the row's policies."""
    return all(r.closed_form for r in g.counted)


def _greys(rows: Sequence[SeedGroup], speaking: Sequence[SeedGroup]) -> list[str]:
    """That there are others, where there are."""
    more = len(rows) - len(speaking)
    return [f"grey: {counted(more, 'other row')}"] if more else []
