"""The space of a search: its dimensions, and the points of a low-discrepancy sequence in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil, log2, sqrt

from xpo_bench.random_streams import stream
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.settings import names
from xpo_bench.runner.words import Request

RATE = sqrt(10)
"""A learning rate is searched from the task's own divided by this to the task's own times this: a decade."""
DECADE = 10.0
"""From which ratio of its bounds on a range is searched in the logarithm."""
LR = "train.lr"


@dataclass(frozen=True)
class Axis:
    """One dimension of a search. `whole`: only whole numbers."""

    name: str
    low: float
    high: float
    whole: bool = False

    def at(self, u: float) -> float:
        """The value at u in [0, 1), four significant digits inside the bounds: log-uniform from a decade on,
        else uniform.
        """
        if self.low > 0 and self.high / self.low >= DECADE * (1 - 1e-9):
            # low·(high/low)^u: ln(value) is uniform, as is fit for rates and strengths over decades
            value = float(self.low * (self.high / self.low) ** u)
        else:
            value = self.low + (self.high - self.low) * u
        value = min(max(float(f"{value:.4g}"), self.low), self.high)
        return round(value) if self.whole else value


def draw(axes: Sequence[Axis], count: int, name: str) -> list[dict[str, float]]:
    """The first `count` points of the scrambled Sobol sequence that belongs to a name; more points begin with
    the same ones.
    """
    if count < 1 or not axes:
        return []
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(axes), scramble=True, seed=stream(0, name, "trials"))
    # balanced in whole blocks of 2^m points; cut, so that more trials begin with the same ones
    points = sampler.random_base2(max(1, ceil(log2(count))))[:count]
    return [{axis.name: axis.at(float(u)) for axis, u in zip(axes, point, strict=True)} for point in points]


def axes_of(cell: Cell, asked: Sequence[Request]) -> list[Axis]:
    """What is searched: the declared ranges and the learning rate, without what the user has fixed."""
    cls, name = type(cell.algorithm), cell.algorithm.name
    written = dict(zip([f.name for f in fields(cls)], names(cls), strict=True))
    fixed = {field for request in asked for field in request.settings.get(name, {})}
    axes = []
    for field, (low, high) in cls.search_space.items():
        if low < high and not fixed & {field, written[field]}:
            axes.append(Axis(written[field], low, high, isinstance(getattr(cell.algorithm, field), int)))
    rate_fixed = any("lr" in r.budget or "lr" in r.settings.get(f"{name}.train", {}) for r in asked)
    rate_fixed = rate_fixed or any("lr" in r.settings.get("task", {}) for r in asked)
    # an algorithm that only solves in closed form takes no gradient step: its rate would be searched in vain
    if not rate_fixed and not all(stage.solve for stage in cell.algorithm.stages()):
        axes.append(Axis(LR, cell.lr / RATE, cell.lr * RATE))
    return axes
