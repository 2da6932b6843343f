"""One metric as the column of a table: its cells, its direction, and who competes for the best mark."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

from xpo_bench.metrics.registry import find
from xpo_bench.report.format import ABSENT, mean_pm, number, si_pm
from xpo_bench.report.items import ItemReader, no_items
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import CENSORED
from xpo_bench.report.table import Column
from xpo_bench.report.verdicts.headline import moved
from xpo_bench.report.verdicts.paired import difference
from xpo_bench.statistics import ALPHA, censored
from xpo_bench.verdicts.best_set import moderate

Direction = Literal["higher", "lower"] | None
MARKED = 200
"""Rows up to which the best are marked."""
PREFIXED = ("FLOP",)
"""Units whose numbers are printed with an SI prefix."""


def competes(g: SeedGroup) -> bool:
    """Only rows whose runs are all ok, and whose policies have moved, can be best."""
    # a run that diverged has the numbers of its last finite evaluation, which prove nothing
    return set(g.status) == {"ok"} and moved(g)


def shares_a_clock(groups: Sequence[SeedGroup | None]) -> bool:
    """Whether runs trained as one computation, so that its speed is nobody's own."""
    return any(g.shares_a_clock for g in groups if g)


def preferred(name: str) -> Direction:
    """The direction that a metric declares."""
    metric = find(name)
    return metric.better if metric else None


def direction(name: str, groups: Sequence[SeedGroup | None]) -> Direction:
    """The direction of a metric; none for a shared clock, nor for the memory of a whole process."""
    metric = find(name)
    if metric is None or (metric.unit == "1/s" and shares_a_clock(groups)):
        return None
    # an allocator of the host keeps and splits pages as it likes: some MB are nobody's merit
    if metric.unit == "MB" and not all(_accelerated(g) for g in groups if g):
        return None
    return metric.better


def _accelerated(g: SeedGroup) -> bool:
    return all(r.environment.device != "cpu" for r in g.records)


def best_rows(groups: Sequence[SeedGroup | None], name: str, items: ItemReader) -> list[bool]:
    """Which rows are marked: those that cannot be separated from the best mean of a metric.

    Paired differences from the best are tested as in the verdicts, corrected for all pairs of rows. Nothing
    is marked where nobody is separated from the best, or where the best are more than half of the rows: a
    mark has to tell some from others. Rows with a run that is not ok, and policies that have not moved, do
    not compete, and of more than `MARKED` rows none is marked: the correction would leave nothing.
    """
    nobody = [False] * len(groups)
    if (better := direction(name, groups)) is None:
        return nobody
    sign = -1 if better == "higher" else 1
    able = ((g, e) for g in groups if g and (e := g.estimate(name)) and competes(g))
    means = {g: sign * e.mean for g, e in islice(able, MARKED + 1)}
    order = sorted(means, key=means.__getitem__)
    if not 2 <= len(order) <= MARKED or means[order[0]] == means[order[-1]]:
        return nobody
    behind = {
        (0, i): found
        for i, g in enumerate(order)
        if i and (found := difference(order[0], g, name, items)) is not None and not found.zero
    }
    pairs = len(order) * (len(order) - 1) // 2
    p_values = {i: d.p for (_, i), d in moderate(behind, len(order)).items()}
    separated = {order[i] for i, p in p_values.items() if p is not None and p * pairs < ALPHA}
    best = set(order) - separated
    return [g in best for g in groups] if 2 * len(best) <= len(order) else nobody


def metric_column(
    header: str,
    name: str,
    groups: Sequence[SeedGroup | None],
    items: ItemReader = no_items,
    rows: int | None = None,
) -> Column:
    """One metric of one task.

    Args:
        items: the held-out items that its marks are tested on. rows: how many have a cell, at most.
    """
    if name in CENSORED:
        return Column(header, [censored_cell(g, name) if g else ABSENT for g in groups[:rows]])
    means = [g.estimate(name) if g else None for g in groups[:rows]]
    metric = find(name)
    if metric is not None and metric.unit in PREFIXED:
        cells = [si_pm(e) for e in means]
    else:
        cells = [mean_pm(e) for e in means]
    return Column(header, cells, best_rows(groups, name, items)[:rows], direction(name, groups))


def censored_cell(g: SeedGroup, name: str) -> str:
    """`20` when it happened in all runs, `20 in 2/3` in some, – in none."""
    when = censored(g.values(name).values())
    n, fraction = when["n"], when["share"]
    # "never" is later than any step, so that the median is one over runs, not over those where it happened
    if not n or not fraction:
        return ABSENT
    median = number(when["median"])
    return median if fraction == 1 else f"{median} in {round(fraction * n)}/{n}"
