"""What a run comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xpo_bench.runner.record import Record
from xpo_bench.runner.run_document import Skipped, Tuning, Unreachable


@dataclass
class Executed:
    """The records of one run, and what was not planned.

    Attributes:
        cells: one record per planned cell that has one, in plan order.
        planned: number of cells that were asked for. computed: of those that this run computed.
        skipped: combinations that `all` left out. unreachable: tasks whose data cannot be had.
        targets: with `target_kl`, the value found for every algorithm on every task, or why there is none.
        beside: the checkpoints at the target of algorithms that are also held there; they were not asked for.
        tuning: of the tuned protocol, for every algorithm on every task its trials and the one chosen.
    """

    out: Path
    cells: list[Record]
    planned: int
    skipped: list[Skipped] = field(default_factory=list)
    unreachable: list[Unreachable] = field(default_factory=list)
    computed: int = 0
    targets: list[dict[str, object]] = field(default_factory=list)
    beside: list[Record] = field(default_factory=list)
    tuning: list[Tuning] = field(default_factory=list)
