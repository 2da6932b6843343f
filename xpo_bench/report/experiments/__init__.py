"""The article's experiments, a file each: what it measures, what that says, and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xpo_bench.report.experiments import (
    bandit,
    choosing_tau,
    dpo_vs_ipo,
    learning_rates,
    overfit,
    robustness,
)
from xpo_bench.report.experiments.base import Experiment
from xpo_bench.report.records import ARTICLE, Record

EXPERIMENTS: Mapping[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (overfit, dpo_vs_ipo, learning_rates, bandit, robustness, choosing_tau)
}
"""By name, in the article's order."""


def of_experiments(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of every experiment that some record belongs to, in the article's order."""
    members: dict[str, list[Record]] = {name: [] for name in EXPERIMENTS}
    for r in records:
        # a label of a user's own may have an experiment's name: the suite tells them apart; of records that
        # are older than the field, the task does
        name = r.experiment
        if r.suite == ARTICLE and name in members and r.task.name in EXPERIMENTS[name].tasks:
            members[name].append(r)
    return {name: cells for name, cells in members.items() if cells}


def others(records: Sequence[Record]) -> list[Record]:
    """The records that no experiment tells of: those without one, and cells that went wrong."""
    told = {id(r) for cells in of_experiments(records).values() for r in cells if r.as_expected}
    return [r for r in records if id(r) not in told]
