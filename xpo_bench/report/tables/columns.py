"""One metric as the column of a table: its cells, its direction, and who competes for the best mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from xpo_bench.metrics.registry import find
from xpo_bench.report.format import ABSENT, mean_pm, narrow, number, si_pm
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.summary import CENSORED
from xpo_bench.report.table import Column
from xpo_bench.statistics import censored

PREFIXED = ("FLOP",)
"""Units whose numbers are printed with an SI prefix."""


def competes(g: SeedGroup) -> bool:
    """Only rows whose runs are all ok can be best."""
    return set(g.status) == {"ok"}


def unlearns(g: SeedGroup) -> bool:
    """Whether its data is to be forgotten and retained, so that it holds no preferences."""
    return all((r["task"].get("data") or {}).get("kind") == "forget_retain" for r in g.records)


def shares_a_clock(groups: Sequence[SeedGroup | None]) -> bool:
    """Whether runs trained as one computation, so that its speed is nobody's own."""
    return any(g.shares_a_clock for g in groups if g)


def direction(name: str, groups: Sequence[SeedGroup | None]) -> Literal["higher", "lower"] | None:
    """The direction of a metric; none for a shared clock, nor for the memory of a whole process."""
    found = find(name)
    if found is None or (found.unit == "1/s" and shares_a_clock(groups)):
        return None
    if found.unit == "MB" and not all(_accelerated(g) for g in groups if g):
        return None
    return found.better


def _accelerated(g: SeedGroup) -> bool:
    return all(str((r.get("environment") or {}).get("device", "cpu")) != "cpu" for r in g.records)


def metric_column(
    header: str, name: str, groups: Sequence[SeedGroup | None], narrow_cells: bool = False
) -> Column:
    """One metric of one task."""
    if name in CENSORED:
        return Column(header, [_censored(g, name) if g else ABSENT for g in groups])
    found = [g.estimate(name) if g else None for g in groups]
    described = find(name)
    if narrow_cells:
        cells = [narrow(e.mean if e else None) for e in found]
    elif described is not None and described.unit in PREFIXED:
        cells = [si_pm(e) for e in found]
    else:
        cells = [mean_pm(e) for e in found]
    values = [e.mean if e and g and competes(g) else None for e, g in zip(found, groups, strict=True)]
    return Column(header, cells, values, direction(name, groups))


def _censored(g: SeedGroup, name: str) -> str:
    """`20` when it happened in all runs, `20 in 2/3` in some, – in none."""
    found = censored(g.values(name).values())
    n, share = found["n"], found["share"]
    if not n or not share:
        return ABSENT
    median = number(found["median"])
    return median if share == 1 else f"{median} in {round(share * n)}/{n}"
