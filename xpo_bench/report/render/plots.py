"""The figures of a report on Matplotlib axes, for a notebook: with the data and styles of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xpo_bench.errors import UsageError, unknown
from xpo_bench.report.content import Report
from xpo_bench.report.figures import Figure
from xpo_bench.report.format import clean, listed
from xpo_bench.report.matched_figure import MatchedFigure, matched_figures
from xpo_bench.report.render.curves import draw_curves
from xpo_bench.report.render.drawing import Drawing, Entry, Panel, handle
from xpo_bench.report.render.figures import styles_of
from xpo_bench.report.render.frontier import draw_frontier
from xpo_bench.report.render.labels import place
from xpo_bench.report.render.matched import draw_matched
from xpo_bench.report.render.style import STYLE, LineStyles
from xpo_bench.report.task_figures import CurvesFigure, FrontierFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("frontier", "curves", "matched")
NOTHING = {
    "frontier": "no task has a known reward with curves of `kl` and `gold_reward`",
    "curves": "no metric has more than one evaluation",
    "matched": "no row reaches a KL of 0.1 nats with a reward or an accuracy on its way",
}


@dataclass(frozen=True)
class Part:
    """One panel of a plot: of which task it is, and of which metric, where it is of one."""

    task: str
    metric: str | None
    panel: Panel


def plot(
    report: Report,
    kind: str,
    ax: Axes | Sequence[Axes] | None = None,
    task: str | None = None,
    metric: str | None = None,
) -> Any:
    """Draw panels of one kind; the axes, an array of them where there are several.

    Raises:
        UsageError: an unknown kind, task or metric, nothing to draw, or not as many axes as panels.
    """
    import matplotlib
    import numpy as np

    if kind not in KINDS:
        raise UsageError(unknown("kind of plot", kind, KINDS))
    if metric is not None and kind != "curves":
        raise UsageError(f"metric {metric!r}: goes with plot('curves')")
    parts, legend = _parts(report, kind, task, metric)
    with matplotlib.rc_context(STYLE):
        axes = _made(parts) if ax is None else list(np.ravel(np.array(ax, dtype=object)))
        if len(axes) != len(parts):
            names = listed([" ".join(filter(None, (p.task, p.metric))) for p in parts])
            raise UsageError(
                f"plot: {len(axes)} axes for {len(parts)} panels ({names}); give as many, or name a task or "
                "a metric"
            )
        _draw(axes, parts, legend, below=ax is None)
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _parts(report: Report, kind: str, task: str | None, metric: str | None) -> tuple[list[Part], list[Entry]]:
    """The panels that are asked for, and the legend of all of them."""
    figures = [f for f in _figures(report, kind) if not f.empty]
    if not figures:
        raise UsageError(f"plot({kind!r}): nothing to draw: {NOTHING[kind]}")
    tasks = {_task(f): f for f in figures}
    if task is not None:
        if task not in tasks:
            raise UsageError(unknown("task of the plot", task, tasks))
        tasks = {task: tasks[task]}
    # of all figures, so that an algorithm looks the same in every plot, and on the page
    styles = styles_of([f for section in report.sections for f in section.figures], report)
    parts, legend = [], dict[str, Entry]()
    for name, figure in tasks.items():
        drawing = _drawing(figure, styles)
        metrics = figure.panels if isinstance(figure, CurvesFigure) else [None] * len(drawing.panels)
        parts += [Part(name, m, p) for m, p in zip(metrics, drawing.panels, strict=True)]
        legend |= {entry.label: entry for entry in drawing.legend}
    if metric is not None:
        known = [str(part.metric) for part in parts]
        parts = [part for part in parts if part.metric == metric]
        if not parts:
            raise UsageError(unknown("metric of the curves", metric, known))
    return parts, [entry for entry in legend.values() if entry.label]


def _figures(report: Report, kind: str) -> Sequence[Figure | MatchedFigure]:
    if kind == "matched":
        return matched_figures(report.matched)
    sort = FrontierFigure if kind == "frontier" else CurvesFigure
    return [f for section in report.sections for f in section.figures if isinstance(f, sort)]


def _task(figure: Figure | MatchedFigure) -> str:
    return figure.of.task if isinstance(figure, CurvesFigure | FrontierFigure) else str(vars(figure)["task"])


def _drawing(figure: Figure | MatchedFigure, styles: LineStyles) -> Drawing:
    if isinstance(figure, CurvesFigure):
        return draw_curves(figure, styles)
    if isinstance(figure, FrontierFigure):
        return draw_frontier(figure, styles)
    assert isinstance(figure, MatchedFigure)
    return draw_matched(figure, styles)


def _made(parts: Sequence[Part]) -> list[Axes]:
    """Axes of a new figure of pyplot, which a notebook shows."""
    import matplotlib.pyplot as plt

    columns = min(3, len(parts))
    rows = -(-len(parts) // columns)
    width, height = (max(getattr(part.panel, name) for part in parts) for name in ("width", "height"))
    size = (columns * (width + 1), rows * height + 0.6)  # an inch for the labels at the ends of lines
    _, grid = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
    axes = list(grid.flat)
    for spare in axes[len(parts) :]:
        spare.remove()
    return axes[: len(parts)]


def _draw(axes: Sequence[Axes], parts: Sequence[Part], legend: Sequence[Entry], below: bool) -> None:
    """Draw every panel; the legend stands below a figure that was made, else in the last of the axes.

    Labels come last, since they need the axes' places.
    """
    labels = [part.panel.draw(ax) for ax, part in zip(axes, parts, strict=True)]
    if len({part.task for part in parts}) > 1:
        for ax, part in zip(axes, parts, strict=True):
            title = ax.get_title(loc="left")
            ax.set_title(f"{clean(part.task)}: {title}" if title else clean(part.task), loc="left")
    handles, figure = list(map(handle, legend)), axes[0].figure.canvas.figure
    if below:
        columns = max(1, int(figure.get_figwidth() / 2))
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=3.4)
    else:
        axes[-1].legend(handles=handles, handlelength=3.4)
    figure.draw_without_rendering()
    for ax, of in zip(axes, labels, strict=True):
        place(ax, of)
