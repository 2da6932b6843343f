"""Draws sweeps of a regulariser, and bars of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.figures import SWEPT, SweepFigure, ThroughputFigure, optimum_kl
from xpo_bench.report.format import clean, counted
from xpo_bench.report.render.axes import decades, few_ticks, power
from xpo_bench.report.render.drawing import WIDTH, Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import (
    BACKGROUND,
    GREY,
    INK,
    LEVEL,
    OTHERS,
    SPEAKING,
    LineStyle,
    LineStyles,
)
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import Sweep
from xpo_bench.report.table import row_label
from xpo_bench.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPTIMUM = "optimum"
"""The series of exact optima."""


def draw_sweep(figure: SweepFigure, styles: LineStyles) -> Drawing:
    """A panel per metric, both axes logarithmic."""
    names, looks = list(figure.sweeps), _looks(figure, styles)
    legend = [Entry(str(i), clean(name), looks[name]) for i, name in enumerate(names[:SPEAKING])]
    if len(names) > SPEAKING:
        legend.append(Entry(OTHERS, counted(len(names) - SPEAKING, "other sweep"), BACKGROUND))
    if "kl" in figure.panels and any(_optima(sweep) for sweep in figure.sweeps.values()):
        legend.append(Entry(OPTIMUM, "exact optimum", LEVEL))
    return Drawing(
        [Panel(partial(_sweeps, figure=figure, metric=m, looks=looks)) for m in figure.panels], legend
    )


def _looks(figure: SweepFigure, styles: LineStyles) -> dict[str, LineStyle]:
    """Sweep -> its style: that of its algorithm, the dashes by its place among the algorithm's sweeps."""
    turns: dict[str, int] = {}
    out = {}
    for i, (name, sweep) in enumerate(figure.sweeps.items()):
        algorithm = sweep.members[0][0].algorithm
        turn = turns[algorithm] = turns.get(algorithm, -1) + 1
        out[name] = styles.algorithm(algorithm, turn) if i < SPEAKING else BACKGROUND
    return out


def _sweeps(ax: Axes, figure: SweepFigure, metric: str, looks: dict[str, LineStyle]) -> list[Label]:
    labels: list[Label] = []
    ends: list[float] = []
    for i, (name, sweep) in enumerate(figure.sweeps.items()):
        if not (points := _points(sweep, metric)):
            continue
        _line(ax, str(i) if i < SPEAKING else OTHERS, points, looks[name])
        ends += [end for _, e in points for end in (e.mean / 2.5, 1.4 * (e.mean + min(e.half or 0, e.mean)))]
        if i < SPEAKING:
            labels.append(Label(str(i), name, points[-1][0], points[-1][1].mean, beside=True))
    if metric == "kl":
        # algorithms with one objective have one optimum
        for best in {tuple(_optima(sweep)) for sweep in figure.sweeps.values()} - {()}:
            ends += [value for _, kl in best for value in (kl / 2.5, kl * 1.4)]
            ax.plot(*zip(*best, strict=True), gid=SERIES + OPTIMUM, zorder=1, **LEVEL.line)
    ax.set(xscale="log", yscale="log", xlabel="regulariser (β, τ, …)", title=SWEPT[metric])
    ax.set_ylim(min(ends), max(ends))  # an interval that reaches down to 0 is cut, not the means
    few_ticks(ax, [value for sweep in figure.sweeps.values() for _, value in sweep.members])
    decades(ax.yaxis)
    return labels


def _points(sweep: Sweep, metric: str) -> list[tuple[float, Estimate]]:
    """(value of the regulariser, the metric there), where it has a logarithm."""
    points = [(value, e) for g, value in sweep.members if (e := g.estimate(metric)) and e.mean > 0]
    return sorted(points, key=lambda point: point[0])


def _optima(sweep: Sweep) -> list[tuple[float, float]]:
    """(value of the regulariser, KL of the exact optimum there), where it is known."""
    return sorted((value, o) for g, value in sweep.members if (o := optimum_kl(g)))


def _line(ax: Axes, series: str, points: Sequence[tuple[float, Estimate]], style: LineStyle) -> None:
    x, mean = [value for value, _ in points], [e.mean for _, e in points]
    half = [e.half or 0.0 for _, e in points]
    # on a logarithmic axis a bar must end above 0
    spread = [[min(h, m * 0.999) for h, m in zip(half, mean, strict=True)], half]
    bars = ax.errorbar(x, mean, yerr=spread, capsize=2, elinewidth=0.8, **(style.mark | style.line))
    for artist in bars.get_children():
        artist.set_gid(SERIES + series)


def draw_throughput(figure: ThroughputFigure, styles: LineStyles) -> Drawing:
    """A bar per row, the fastest first; overhead beside it where it was measured."""
    kinds = {"pairs_per_s": "pairs per second"}
    if any(g.estimate("overhead") for g in figure.groups):
        kinds["overhead"] = "step time over a plain loop"
    rows = sorted(figure.groups, key=lambda g: -(e.mean if (e := g.estimate("pairs_per_s")) else 0.0))
    height, loud = 0.21 * len(rows) + 0.75, figure.groups[:SPEAKING]
    return Drawing(
        [
            Panel(partial(_bars, rows=rows, loud=loud, metric=m, title=t, styles=styles), WIDTH, height)
            for m, t in kinds.items()
        ]
    )


def _bars(
    ax: Axes,
    rows: Sequence[SeedGroup],
    loud: Sequence[SeedGroup],
    metric: str,
    title: str,
    styles: LineStyles,
) -> list[Label]:
    """One metric; only rows that speak have the colours of their algorithms."""
    from matplotlib.ticker import MaxNLocator

    for i, g in enumerate(rows):
        if e := g.estimate(metric):
            ax.barh(i, e.mean, 0.66, color=styles.row(g.label).colour if g in loud else GREY, lw=0)
            if e.half:
                ax.plot([max(0.0, e.mean - e.half), e.mean + e.half], [i, i], color=INK, lw=1)
    ax.set_yticks(range(len(rows)), [row_label(g.label) for g in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, None)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(lambda v, _: power(v))
    ax.set_title(title)
    if metric == "overhead":
        ax.axvline(1, color=INK, lw=0.8, ls=":")
    return []
