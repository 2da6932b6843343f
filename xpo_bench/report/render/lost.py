"""The pairs whose chosen completions lost most, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from xpo_bench.runner.record import Record

SHOWN = 5
"""Pairs of a row of the tables that are printed."""


def print_lost(records: Sequence[Record], console: Console | None = None) -> None:
    """Print, for every evaluated model, the rows of the file whose chosen completion became less probable."""
    console = console or Console()
    for record in records:
        lost = record.get("evaluated", {}).get("lost", [])[:SHOWN]
        if not lost:
            continue
        name = record["algorithm"]["name"]
        seed = f", seed {record['seed']}" if record["seed"] else ""
        parts = [
            f"row {pair['row']} ({pair['chosen_log_ratio']:.3g} nats, "
            f"{pair['chosen_log_ratio'] / max(pair['chosen_length'], 1):.2g} per token)"
            for pair in lost
        ]
        console.print(f"{name}{seed}: chosen completions that lost most: {'; '.join(parts)}", markup=False)
