"""Reports of synthetic records: printed, and with held-out items in their run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from xpo_bench.report.content import assemble
from xpo_bench.report.render.terminal import print_report

NOWHERE = Path("no-such-run")
"""A run directory without curves and items."""


def print_run(
    console: Console, records: Sequence[Mapping[str, Any]], *, root: Path = NOWHERE, **document: Any
) -> None:
    """What the end of `run` prints of records; `document` is what it knows of run.json."""
    print_report(console, assemble(root, records, document))


def store_items(
    root: Path,
    key: str,
    correct: Sequence[float | None],
    *,
    at_1: Sequence[float | None] | None = None,
    cluster: Sequence[str] | None = None,
    longer: Sequence[int] | None = None,
    split: str = "heldout",
) -> None:
    """Write RUN/items/KEY.parquet.

    Args:
        correct: of every item, 0, ½ or 1. at_1: the same within 1 nat of KL; equal without it. cluster: of
            every item; one each without it. longer: tokens that the chosen completion has more.
    """
    n = len(correct)
    chosen = [10 + more for more in longer or [0] * n]
    table = pa.table(
        {
            "item": [f"item {i}" for i in range(n)],
            "cluster": list(cluster or [f"person {i}" for i in range(n)]),
            "split": [split] * n,
            "chosen_length": pa.array(chosen, pa.int64()),
            "rejected_length": pa.array([10] * n, pa.int64()),
            "correct": pa.array(correct, pa.float64()),
            "correct_at_1": pa.array(correct if at_1 is None else at_1, pa.float64()),
        }
    )
    (root / "items").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "items" / f"{key}.parquet")
