"""The figures of a report: curves over steps, the reward–KL frontier, sweeps and throughput."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from xpo_bench.report.experiments.base import Curves
from xpo_bench.report.experiments.files import COLOURS, GREY, LINES, STYLE
from xpo_bench.report.format import clean
from xpo_bench.report.render.svg import SERIES, inline
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import control
from xpo_bench.report.table import row_label
from xpo_bench.report.tables.columns import shares_a_clock
from xpo_bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE: Any = STYLE | {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
}
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
CUT = 500
"""Axes whose lines spread over more than this are drawn on a symmetric log scale."""
FEW = 50
"""Runs of at most this many steps are drawn on a linear axis."""
WIDE = 3
"""A band this many times wider than its panel says nothing there and is left out."""

ROUNDING = 1e-9
"""Lines that spread over less than this share of their size are flat."""

Band = tuple[float, float, float]
"""(mean, low, high); low = high = mean of a single run."""
Series = dict[float, Band]


@dataclass(frozen=True)
class Entry:
    """One line of a legend: what `data-s` of the figure's parts it stands for, and how they are drawn."""

    index: int
    label: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Chart:
    """A figure of the page: SVG, its legend, and what it shows."""

    svg: str
    legend: Sequence[Entry]
    caption: str


@dataclass(frozen=True)
class LineStyles:
    """How every row of a report is drawn, the same in all its figures."""

    names: Sequence[str]

    @classmethod
    def of(cls, names: Iterable[str]) -> LineStyles:
        return cls(list(dict.fromkeys(names)))

    def colour(self, name: str) -> str:
        return COLOURS[self.names.index(name) % 6]

    def line(self, name: str) -> dict[str, Any]:
        return {"color": self.colour(name), "ls": LINES[self.names.index(name) // 6 % len(LINES)]}

    def marker(self, name: str) -> str:
        return "osD"[self.names.index(name) // 6 % 3]

    def entry(self, name: str, index: int) -> Entry:
        dashes = ("", "5 2.5", "1.5 2")[self.names.index(name) // 6 % len(LINES)]
        return Entry(index, clean(name), self.colour(name), dashes)


class Studio:
    """Draws the figures of one page, numbering them."""

    def __init__(self) -> None:
        self.drawn = 0

    def chart(
        self, draw: Callable[[], Figure | None], caption: str, legend: Sequence[Entry] = ()
    ) -> Chart | None:
        """Draw under the page's style; None when there is nothing to draw."""
        import matplotlib

        with matplotlib.rc_context(PAGE):
            figure = draw()
            if figure is None:
                return None
            self.drawn += 1
            return Chart(inline(figure, f"f{self.drawn}-", caption), legend, caption)


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


# --------------------------------------------------------------------------- curves


def series(group: SeedGroup, curves: Curves) -> dict[str, Series]:
    """Metric -> step -> mean over seeds with its interval; `margin` is made of what the curves hold."""
    gathered: dict[str, dict[float, list[float]]] = {}
    for record in group.counted:
        first: Mapping[str, Any] | None = None
        for point in curves(record):
            first = first or point
            row = {k: v for k, v in point.items() if k != "step" and v is not None and math.isfinite(v)}
            pair = ("chosen_logp", "rejected_logp")
            if all(name in row and first.get(name) is not None for name in pair):
                row["margin"] = (row[pair[0]] - first[pair[0]]) - (row[pair[1]] - first[pair[1]])
            for name, value in row.items():
                gathered.setdefault(name, {}).setdefault(point["step"], []).append(value)
    return {
        name: {step: _band(estimate(values)) for step, values in sorted(at.items())}
        for name, at in gathered.items()
    }


def _band(found: Estimate | None) -> Band:
    assert found is not None
    return (found.mean, *(found.interval or (found.mean, found.mean)))


def task_curves(
    studio: Studio,
    task: str,
    groups: Sequence[SeedGroup],
    known: Mapping[SeedGroup, dict[str, Series]],
    look: LineStyles,
) -> Chart | None:
    """One panel per quantity, one line per row of the task's table, with 95 % bands over seeds."""
    here = [g for g in groups if known[g]]
    panels = [m for m in PANELS if any(len(known[g].get(m, ())) > 1 for g in here)]
    if "heldout_reward_accuracy" in panels and "reward_accuracy" in panels:
        panels.remove("reward_accuracy")
    if not panels:
        return None

    def draw() -> Figure:
        columns = min(3, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure, axes = canvas(rows, columns, 3.5 * columns, 2.5 * rows)
        for ax, metric in zip(axes, panels, strict=False):
            _panel(ax, metric, here, known, look)
        for ax in axes[len(panels) :]:
            ax.remove()
        return figure

    legend = [look.entry(g.label, i) for i, g in enumerate(here)]
    return studio.chart(
        draw,
        f"{clean(task)}: curves over optimizer steps; bands are 95 % intervals over seeds, where they fit the panel",
        legend,
    )


def _panel(
    ax: Axes,
    metric: str,
    groups: Sequence[SeedGroup],
    known: Mapping[SeedGroup, dict[str, Series]],
    look: LineStyles,
) -> None:
    shown = [(i, g, known[g][metric]) for i, g in enumerate(groups) if len(known[g].get(metric, ())) > 1]
    means = [band[0] for _, _, at in shown for band in at.values()]
    least, most = min(means), max(means)
    flat = most - least < ROUNDING * max(1.0, abs(most))
    room = 0.25 * (most - least) if not flat else 0.1 * abs(most) if abs(most) > ROUNDING else 0.1
    for i, g, at in shown:
        steps = list(at)
        mean, low, high = (list(column) for column in zip(*at.values(), strict=True))
        ax.plot(steps, mean, gid=f"{SERIES}{i}", **look.line(g.label))
        width = statistics.median(top - bottom for top, bottom in zip(high, low, strict=True))
        if low != high and width < WIDE * 6 * room:
            style: dict[str, Any] = {
                "color": look.colour(g.label),
                "alpha": 0.16 if len(groups) < 8 else 0.08,
                "lw": 0,
            }
            ax.fill([*steps, *steps[::-1]], [*low, *high[::-1]], gid=f"{SERIES}{i}", **style)
    steps_axis(ax, max(at_step for _, _, at in shown for at_step in at))
    if metric == "loss" and least > 0 and most > 50 * least:
        ax.set_yscale("log")
        decades(ax.yaxis)
    elif (metric == "kl" and most > 20) or (not metric.endswith("accuracy") and most - least > CUT):
        symmetric(ax, 1.0)
    else:
        # an interval of two seeds may be far wider than all means: it is cut, not the means
        bottom, top = (-math.inf, math.inf) if flat else ax.get_ylim()
        ax.set_ylim(max(least - room, bottom), min(most + room, top))
    ax.set_title(PANELS[metric])


def steps_axis(ax: Axes, end: float) -> None:
    """Steps from 0 on, whose spacing is that of the evaluations: nearly logarithmic."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    ax.set_xlabel("steps")
    if end <= FEW:
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, end)
    ax.xaxis.set_major_locator(FixedLocator([0, *(10.0**k for k in range(int(math.log10(max(end, 1))) + 1))]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))


def symmetric(ax: Axes, linear: float) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_yscale("symlog", linthresh=linear)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda v, _: power(v))


def decades(axis: Any) -> None:
    """Powers of ten on a log axis as plain text, few of them and no minor labels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    few = 0 < high < 50 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=7))
    axis.set_major_formatter(lambda v, _: power(v))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """0.01, 1, 1000, 10⁻⁵: numbers of ticks without markup."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = abs(value) / 10.0**exponent
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    times = "" if abs(mantissa - 1) < 1e-6 else f"{mantissa:.2g}·"
    return f"{'−' if value < 0 else ''}{times}10{digits}"


# --------------------------------------------------------------------------- the frontier


def frontier(
    studio: Studio,
    task: str,
    groups: Sequence[SeedGroup],
    known: Mapping[SeedGroup, dict[str, Series]],
    curves: Curves,
    look: LineStyles,
) -> Chart | None:
    """Reward against KL in the course of training, ends marked, under the exact frontier.

    A policy's reward plus its gap is the frontier at its own KL, whoever it is: max E_ρ r over KL(ρ‖π_ref) ≤
    kl, reached by π ∝ π_ref·exp(r/b). Seeds may weight prompts differently; the frontier drawn is that of the
    first.
    """
    wanted = ("kl", "gold_reward")
    here = [g for g in groups if g.counted and all(known[g].get(m) for m in (*wanted, "frontier_gap"))]
    if not here:
        return None
    seed = min(r["seed"] for g in here for r in g.counted)
    exact = sorted(
        (p["kl"], p["gold_reward"] + p["frontier_gap"])
        for g in here
        for r in g.counted
        if r["seed"] == seed
        for p in curves(r)
        if all(p.get(m) is not None and math.isfinite(p[m]) for m in (*wanted, "frontier_gap"))
    )
    if not exact or exact[-1][0] <= 0:
        return None

    def draw() -> Figure:
        import numpy as np
        from matplotlib.ticker import FixedLocator, NullLocator

        figure, (ax,) = canvas(1, 1, 7.5, 4.4)
        top = max(exact[-1][0], 1e-2)
        thinned = [
            p for i, p in enumerate(exact) if i in (0, len(exact) - 1) or p[0] - exact[i - 1][0] > top / 5000
        ]
        ax.plot(*zip(*thinned, strict=True), color="#000000", lw=2.2, zorder=1)
        for i, g in enumerate(here):
            kl, reward = ([band[0] for band in known[g][m].values()] for m in wanted)
            n = min(len(kl), len(reward))
            ax.plot(kl[:n], reward[:n], gid=f"{SERIES}{i}", lw=0.9, alpha=0.7, **look.line(g.label))
            ax.plot(
                kl[-1:],
                reward[-1:],
                look.marker(g.label),
                ms=5,
                color=look.colour(g.label),
                gid=f"{SERIES}{i}",
            )
        ax.set_xlabel("KL(π‖π_ref) (nats)")
        ax.set_ylabel("E[reward]")
        ax.set_title("thick: the exact frontier, π ∝ π_ref·exp(r/b) at every b; dots: ends of training")
        # near the reference the reward that can be had grows as √KL: on this scale a chord of the frontier
        # lies below it
        ax.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        ax.set_xlim(0, ax.get_xlim()[1])
        ends = [
            t for t in (0, *(a * 10.0**k for k in range(-3, 4) for a in (1, 3))) if t == 0 or top / 200 < t
        ]
        ax.xaxis.set_major_locator(FixedLocator(ends))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda v, _: power(v))
        return figure

    legend = [look.entry(g.label, i) for i, g in enumerate(here)]
    return studio.chart(
        draw,
        f"{clean(task)}: reward against KL in the course of training, under the closed-form optimum",
        legend,
    )


# --------------------------------------------------------------------------- sweeps

SWEPT = {"kl": "final KL from the initial policy (nats)", "rejected_prob": "final π(rejected), per token"}


def sweeps(studio: Studio, groups: Sequence[SeedGroup]) -> list[Chart]:
    """For every task, final KL and rejected probability against the declared regulariser, log–log."""
    found: dict[int, list[SeedGroup]] = {}
    for g, row in control(groups).items():
        found.setdefault(id(row), []).append(g)
    tasks: dict[str, dict[str, list[SeedGroup]]] = {}
    for members in found.values():
        first = members[0].records[0]
        name = f"{first['algorithm']['name']} ({first['algorithm']['regulariser'][0]})"
        place = tasks.setdefault(members[0].task, {})
        while name in place:  # the same field swept beside another one
            name += "′"
        place[name] = members
    look = LineStyles.of(name for place in tasks.values() for name in place)
    charts = (studio.chart(*_sweep(task, place, look)) for task, place in tasks.items())
    return [c for c in charts if c is not None]


def _sweep(
    task: str, place: Mapping[str, Sequence[SeedGroup]], look: LineStyles
) -> tuple[Callable[[], Figure | None], str, list[Entry]]:
    def knob(g: SeedGroup) -> float:
        return float(g.records[0]["algorithm"]["config"][g.records[0]["algorithm"]["regulariser"][0]])

    def draw() -> Figure | None:
        shown = [
            m
            for m in SWEPT
            if any((e := g.estimate(m)) and e.mean > 0 for members in place.values() for g in members)
        ]
        if not shown:
            return None
        figure, axes = canvas(1, len(shown), 4.6 * len(shown), 3.4)
        for ax, metric in zip(axes, shown, strict=True):
            for i, (name, members) in enumerate(place.items()):
                points = sorted((knob(g), e) for g in members if (e := g.estimate(metric)) and e.mean > 0)
                x, mean = [p[0] for p in points], [p[1].mean for p in points]
                half = [p[1].half or 0.0 for p in points]
                spread = [[min(h, m * 0.999) for h, m in zip(half, mean, strict=True)], half]
                style = look.line(name)
                for artist in ax.errorbar(
                    x, mean, yerr=spread, marker="o", ms=4, capsize=2, **style
                ).get_children():
                    artist.set_gid(f"{SERIES}{i}")
                if metric == "kl":
                    best = [(knob(g), o) for g in members if (o := _optimum(g))]
                    if best:
                        best.sort()
                        ax.plot(*zip(*best, strict=True), color="#000000", lw=1, ls="-.", gid=f"{SERIES}{i}")
            ax.set(xscale="log", yscale="log", xlabel="regulariser (β, τ, …)", title=SWEPT[metric])
            found = [
                e for members in place.values() for g in members if (e := g.estimate(metric)) and e.mean > 0
            ]
            # an interval that reaches down to 0 is cut, not the means
            ax.set_ylim(
                min(e.mean for e in found) / 2.5, max(e.mean + min(e.half or 0, e.mean) for e in found) * 1.4
            )
            _few_ticks(ax, [knob(g) for members in place.values() for g in members])
            decades(ax.yaxis)
        return figure

    told = any(_optimum(g) for members in place.values() for g in members)
    note = "; dash-dotted: KL of the exact optimum" if told else ""
    caption = f"{clean(task)}: where training ends along the sweep of each regulariser{note}"
    return draw, caption, [look.entry(name, i) for i, name in enumerate(place)]


def _few_ticks(ax: Axes, values: Sequence[float]) -> None:
    """The swept values themselves where they are few, powers of ten otherwise."""
    from matplotlib.ticker import FixedLocator, NullLocator

    distinct = sorted(set(values))
    kept: list[float] = []
    span = math.log(distinct[-1] / distinct[0])
    for v in distinct:
        if not kept or math.log(v / kept[-1]) > 0.09 * span:
            kept.append(v)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: power(v))


def _optimum(g: SeedGroup) -> float | None:
    found = estimate((r.get("notes") or {}).get("optimum_kl") for r in g.counted)
    return found.mean if found and found.mean > 0 else None


# --------------------------------------------------------------------------- throughput


def throughput(studio: Studio, groups: Sequence[SeedGroup]) -> tuple[list[Chart], list[Chart]]:
    """Bars of pairs per second per task, with overhead: runs with a clock of their own, and those that shared
    one.
    """
    own: list[Chart] = []
    shared: list[Chart] = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task and g.estimate("pairs_per_s")]
        for together, into in ((False, own), (True, shared)):
            part = [g for g in here if shares_a_clock([g]) == together]
            if part:
                chart = studio.chart(partial(_bars, part, together), _speed(task, together))
                into += [chart] if chart else []
    return own, shared


def _speed(task: str, together: bool) -> str:
    if together:
        return f"{clean(task)}: runs trained as one computation and share its clock, so that bars do not compare algorithms"
    return f"{clean(task)}: speed of training, evaluation excluded"


def _bars(groups: Sequence[SeedGroup], together: bool) -> Figure:
    kinds = {"pairs_per_s": "pairs per second"}
    if not together and any(g.estimate("overhead") for g in groups):
        kinds["overhead"] = "overhead: step time over a bare supervised step"
    # what was one computation is one bar
    one: dict[Any, list[SeedGroup]] = {}
    for g in groups:
        one.setdefault(g.estimate("pairs_per_s") if together else g, []).append(g)
    order = sorted(
        one.values(), key=lambda members: -(e.mean if (e := members[0].estimate("pairs_per_s")) else 0.0)
    )
    figure, axes = canvas(1, len(kinds), 4.2 * len(kinds) + 1.5, 0.21 * len(order) + 0.75)
    for ax, (metric, title) in zip(axes, kinds.items(), strict=True):
        for i, members in enumerate(order):
            e = members[0].estimate(metric)
            if e is not None:
                ax.barh(i, e.mean, 0.66, color=GREY if together else COLOURS[0], lw=0)
                if e.half:
                    ax.plot([max(0.0, e.mean - e.half), e.mean + e.half], [i, i], color="#000000", lw=1)
        ax.set_yticks(range(len(order)), [_who(members) if ax is axes[0] else "" for members in order])
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlim(0, None)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(_five())
        ax.xaxis.set_major_formatter(lambda v, _: power(v))
        ax.set_title(title, loc="left")
        if metric == "overhead":
            ax.axvline(1, color="#000000", lw=0.8, ls=":")
    return figure


def _who(members: Sequence[SeedGroup]) -> str:
    names = [row_label(g.label) for g in members]
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _five() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)
