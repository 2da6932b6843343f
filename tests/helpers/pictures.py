"""What stands in a drawn figure."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from xpo_bench.report.render.axes import EDGE
from xpo_bench.report.render.drawing import Drawing, whole
from xpo_bench.report.render.style import STYLE


def drawn(drawing: Drawing) -> Figure:
    """The figure as a file has it."""
    with matplotlib.rc_context(STYLE):
        return whole(drawing)


def lines(ax: Axes, series: str) -> list[Line2D]:
    """The lines and marks of a series that lie in the plane of the data."""
    found = [line for line in ax.get_lines() if line.get_gid() == f"series-{series}"]
    return [line for line in found if line.get_transform().contains_branch(ax.transData)]


def joined(ax: Axes) -> list[Line2D]:
    """The lines of the data, without marks."""
    return [
        line
        for line in ax.get_lines()
        if line.get_linestyle() != "None" and line.get_transform().contains_branch(ax.transData)
    ]


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line, in its own coordinates."""
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata(), float)]


def edges(ax: Axes) -> list[tuple[str, float, float]]:
    """Marks where lines leave the axes: whose, and where in parts of the axes."""
    return [
        (str(line.get_gid()).removeprefix("series-"), *points(line)[0])
        for line in ax.get_lines()
        if line.get_label() == EDGE
    ]


def texts(ax: Axes) -> list[str]:
    """What is written within the axes and in their margin."""
    return [text.get_text() for text in ax.texts]


def pixels(ax: Axes, line: Line2D) -> NDArray[np.float64]:
    """The points of a line in the picture, with those halfway between two: there a picture is straight."""
    at = np.asarray(ax.transData.transform(points(line)), float)
    return np.concatenate([at, (at[1:] + at[:-1]) / 2])


def assert_nothing_crosses(ax: Axes) -> None:
    """Of the lines of an axes, as they are drawn, none lies above its exact frontier."""
    (frontier,) = lines(ax, "exact")
    edge = np.asarray(ax.transData.transform(points(frontier)), float)
    assert len(edge) > 50
    others = [line for line in joined(ax) if line is not frontier]
    assert others
    for line in others:
        at = pixels(ax, line)
        at = at[at[:, 0] <= edge[-1, 0]]
        assert (at[:, 1] <= np.interp(at[:, 0], edge[:, 0], edge[:, 1]) + 0.3).all()
