"""What stored runs predict of held-out people: a number per pair, algorithm and value of its regulariser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xpo_bench.metrics.kl import kl_se
from xpo_bench.report.records import Record, records_of
from xpo_bench.runner.item_file import item_table
from xpo_bench.runner.store import Store
from xpo_bench.statistics import quantile

Array = npt.NDArray[np.float64]
Value = float | None
"""Of an algorithm's regulariser; None where it has none that is swept."""
SWEPT = ("beta", "tau")
"""Fields that are swept."""
MEASURES = ("log_likelihood", "brier", "accuracy")
"""Per held-out pair, by the odds σ(Δ) that the policy itself gives the two sides; accuracy is 0, ½ or 1."""


class Held(NamedTuple):
    """The held-out pairs of a cell: item and person of each, log-odds of the side taken."""

    items: tuple[str, ...]
    people: tuple[str, ...]
    odds: Array


@dataclass
class Predictions:
    """One task: its held-out pairs, and how every setting did on each.

    Args:
        person: of every pair. values: (algorithm, value) -> measure -> a number per pair, the mean over
            seeds. seeds: (algorithm, value) -> how many.
    """

    task: str
    person: tuple[str, ...]
    values: dict[tuple[str, Value], dict[str, Array]] = field(default_factory=dict)
    seeds: dict[tuple[str, Value], int] = field(default_factory=dict)

    @property
    def algorithms(self) -> list[str]:
        return sorted({name for name, _ in self.values})

    def settings(self, algorithm: str) -> list[Value]:
        """The values of an algorithm, in ascending order."""
        return sorted((value for name, value in self.values if name == algorithm), key=lambda v: v or 0.0)

    def index(self) -> npt.NDArray[np.int64]:
        """The number of the person of every pair."""
        return np.unique(np.array(self.person), return_inverse=True)[1].astype(np.int64)


def predictions(runs: Sequence[Path], tasks: Sequence[str], model: str) -> dict[str, Predictions]:
    """The held-out pairs of tasks in run directories: those of all cells of a policy that stored items."""
    parts: dict[str, dict[tuple[str, Value], list[Held]]] = {}
    seen: set[str] = set()  # a cell that two run directories hold counts once
    for root in runs:
        for record in records_of(Store.existing(root).records()):
            wanted = record.task.name in tasks and record.task.model["name"] == model
            if not wanted or record.status != "ok" or record.key in seen:
                continue
            found = _heldout(root, record)
            if found is not None:
                seen.add(record.key)
                key = (record.algorithm.name, value_of(record))
                parts.setdefault(record.task.name, {}).setdefault(key, []).append(found)
    return {task: _joined(task, parts[task]) for task in tasks if task in parts}


def value_of(record: Record) -> Value:
    """Of what holds the policy near its reference, where that is a float and larger means nearer."""
    known = record.algorithm.regulariser
    if known is None or known[0] not in SWEPT:
        return None
    return float(record.algorithm.config[known[0]])


def _heldout(root: Path, record: Record) -> Held | None:
    table = item_table(root, record.key)
    if table is None:
        return None
    columns = table.to_pydict()
    held = [i for i, split in enumerate(columns["split"]) if split == "heldout"]
    odds = np.subtract(columns["chosen_log_ratio"], columns["rejected_log_ratio"]).astype(float)
    items, people = (tuple(columns[name][i] for i in held) for name in ("item", "cluster"))
    return Held(items, people, odds[held])


def _joined(task: str, parts: Mapping[tuple[str, Value], Sequence[Held]]) -> Predictions:
    first = next(iter(parts.values()))[0]
    out = Predictions(task, first.people)
    for key, seeds in parts.items():
        if any(one.items != first.items for one in seeds):
            raise SystemExit(f"{task}: {key[0]} was evaluated on other pairs than the rest; want one version")
        each = [measured(one.odds) for one in seeds]
        out.values[key] = {name: np.mean([one[name] for one in each], axis=0) for name in MEASURES}
        out.seeds[key] = len(seeds)
    return out


def measured(odds: Array) -> dict[str, Array]:
    """Log-likelihood in nats, squared error and accuracy of log-odds of what was taken."""
    wrong = np.exp(-np.logaddexp(0.0, odds))  # 1 − σ(odds)
    return {
        "log_likelihood": -np.logaddexp(0.0, -odds),
        "brier": wrong**2,
        "accuracy": (np.sign(odds) + 1) / 2,
    }


def half_width(values: Array, clusters: npt.NDArray[np.int64]) -> float:
    """Of the 95 % interval of a mean over pairs, people being what is drawn: Student's t."""
    return quantile(len(set(clusters.tolist())) - 1) * kl_se(values, clusters)


def cross_fitted(found: Predictions, algorithm: str, measure: str) -> tuple[Array, tuple[Value, Value]]:
    """Every pair under the value that predicts the OTHER half of the people best, and both values.

    A value that is chosen on the people whom it is judged by looks better than it is.
    """
    settings = found.settings(algorithm)
    side = (found.index() % 2).astype(bool)
    table = np.array([found.values[algorithm, value][measure] for value in settings])
    likely = np.array([found.values[algorithm, value]["log_likelihood"] for value in settings])
    best = [int(np.argmax(likely[:, side == half].mean(1))) for half in (False, True)]
    return np.where(side, table[best[0]], table[best[1]]), (settings[best[0]], settings[best[1]])
