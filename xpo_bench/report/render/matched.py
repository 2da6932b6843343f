"""Draws what rows have earned at equal KL, with intervals over seeds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.format import clean
from xpo_bench.report.matched_figure import MatchedFigure
from xpo_bench.report.render.axes import power
from xpo_bench.report.render.drawing import ALONE, Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import LineStyles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 0.08
"""Between rows at one KL, where the next KL is 1 away."""


def draw_matched(figure: MatchedFigure, styles: LineStyles) -> Drawing:
    """Points with error bars at every KL; those of one KL stand beside one another."""
    legend = [Entry(str(i), clean(label), styles.row(label)) for i, label in enumerate(figure.rows)]
    return Drawing([Panel(partial(_panel, figure=figure, styles=styles), *ALONE)], legend)


def _panel(ax: Axes, figure: MatchedFigure, styles: LineStyles) -> list[Label]:
    every = sorted({kl for points in figure.rows.values() for kl, _ in points})
    middle = (len(figure.rows) - 1) / 2
    for place, (label, points) in enumerate(figure.rows.items()):
        style = styles.row(label)
        x = [every.index(kl) + APART * (place - middle) for kl, _ in points]
        half = [e.half or 0.0 for _, e in points]
        means = [e.mean for _, e in points]
        # rows of one algorithm have its marker, every other one hollow: there are no lines to tell them apart
        hollow = {"mfc": "white", "mew": 1} if styles.rows[label][1] % 2 else {}
        look = style.line | style.mark | {"ls": ""} | hollow
        ax.errorbar(x, means, half, capsize=2, elinewidth=1, **look)
    ax.set_xlim(-0.5, len(every) - 0.5)
    ax.set_xticks(range(len(every)), [power(kl) for kl in every])
    ax.set_xlabel("where KL(π‖π_ref) first reaches (nats)")
    ax.set_ylabel(str(figure.metric).replace("_", " "))
    return []
