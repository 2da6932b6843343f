"""Draws sweeps of a regulariser, and bars of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.figures import SWEPT, SweepFigure, ThroughputFigure, optimum_kl
from xpo_bench.report.render.axes import decades, few_ticks, power
from xpo_bench.report.render.style import COLOURS, GREY, LineStyles, canvas
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import Sweep
from xpo_bench.report.table import row_label
from xpo_bench.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#000000"


def draw_sweep(figure: SweepFigure, styles: LineStyles) -> Figure:
    """A panel per metric, both axes logarithmic."""
    drawn, axes = canvas(1, len(figure.panels), 4.6 * len(figure.panels), 3.4)
    for ax, metric in zip(axes, figure.panels, strict=True):
        shown = [e for sweep in figure.sweeps.values() for _, e in _points(sweep, metric)]
        for i, (name, sweep) in enumerate(figure.sweeps.items()):
            _line(ax, f"{SERIES}{i}", sweep, metric, styles, name)
        ax.set(xscale="log", yscale="log", xlabel="regulariser (β, τ, …)", title=SWEPT[metric])
        # an interval that reaches down to 0 is cut, not the means
        ax.set_ylim(
            min(e.mean for e in shown) / 2.5, max(e.mean + min(e.half or 0, e.mean) for e in shown) * 1.4
        )
        few_ticks(ax, [value for sweep in figure.sweeps.values() for _, value in sweep.members])
        decades(ax.yaxis)
    return drawn


def _points(sweep: Sweep, metric: str) -> list[tuple[float, Estimate]]:
    """(value of the regulariser, the metric there), where it has a logarithm."""
    points = [(value, e) for g, value in sweep.members if (e := g.estimate(metric)) and e.mean > 0]
    return sorted(points, key=lambda point: point[0])


def _line(ax: Axes, gid: str, sweep: Sweep, metric: str, styles: LineStyles, name: str) -> None:
    points = _points(sweep, metric)
    x, mean = [value for value, _ in points], [e.mean for _, e in points]
    half = [e.half or 0.0 for _, e in points]
    # on a logarithmic axis a bar must end above 0
    spread = [[min(h, m * 0.999) for h, m in zip(half, mean, strict=True)], half]
    bars = ax.errorbar(x, mean, yerr=spread, marker="o", ms=4, capsize=2, **styles.line(name))
    for artist in bars.get_children():
        artist.set_gid(gid)
    best = sorted((value, o) for g, value in sweep.members if (o := optimum_kl(g)))
    if metric == "kl" and best:
        ax.plot(*zip(*best, strict=True), color=INK, lw=1, ls="-.", gid=gid)


def draw_throughput(figure: ThroughputFigure) -> Figure:
    """A bar per row, the fastest first; overhead beside it where it was measured."""
    kinds = {"pairs_per_s": "pairs per second"}
    if not figure.shared and any(g.estimate("overhead") for g in figure.groups):
        kinds["overhead"] = "overhead: step time over a supervised (SFT) step"
    bars = _bars(figure)
    drawn, axes = canvas(1, len(kinds), 4.2 * len(kinds) + 1.5, 0.21 * len(bars) + 0.75)
    for ax, (metric, title) in zip(axes, kinds.items(), strict=True):
        for i, members in enumerate(bars):
            if e := members[0].estimate(metric):
                ax.barh(i, e.mean, 0.66, color=GREY if figure.shared else COLOURS[0], lw=0)
                if e.half:
                    ax.plot([max(0.0, e.mean - e.half), e.mean + e.half], [i, i], color=INK, lw=1)
        names = [_who(members) if ax is axes[0] else "" for members in bars]
        _bar_axes(ax, names, title)
        if metric == "overhead":
            ax.axvline(1, color=INK, lw=0.8, ls=":")
    return drawn


def _bars(figure: ThroughputFigure) -> list[Sequence[SeedGroup]]:
    """The rows of each bar: what was one computation, and so has one speed, is one bar."""
    one: dict[object, list[SeedGroup]] = {}
    for g in figure.groups:
        one.setdefault(g.estimate("pairs_per_s") if figure.shared else g, []).append(g)
    return sorted(one.values(), key=lambda rows: -(e.mean if (e := rows[0].estimate("pairs_per_s")) else 0.0))


def _bar_axes(ax: Axes, names: Sequence[str], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, None)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(lambda v, _: power(v))
    ax.set_title(title, loc="left")


def _who(members: Sequence[SeedGroup]) -> str:
    names = [row_label(g.label) for g in members]
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
