"""The table of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpo_bench.report.format import ABSENT, clean
from xpo_bench.report.render.console import say

STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


def print_checks(console: Console, algorithms: Sequence[Mapping[str, Any]]) -> None:
    """Check, verdict and what to do, per algorithm.

    Args:
        algorithms: {name, checks: [{check, verdict, message, remedy}]}.
    """
    for algorithm in algorithms:
        say(console, str(algorithm["name"]), "bold")
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold"
        )
        table.add_column(Text("check"), no_wrap=True)
        table.add_column(Text("verdict"), no_wrap=True)
        table.add_column(Text("what to do"), overflow="fold", ratio=1)
        first: dict[str, str] = {}  # message -> the check that told it
        for row in algorithm["checks"]:
            failed = row["verdict"] == "failed"
            told = first.setdefault(row["message"], row["check"]) if failed else row["check"]
            if told != row["check"]:
                todo = f"the same as {told}"
            else:
                todo = (
                    f"{row['message'].removesuffix('.')}. {row['remedy']}"
                    if failed
                    else row["message"] or ABSENT
                )
            table.add_row(
                Text(row["check"]), Text(row["verdict"], style=STYLES[row["verdict"]]), Text(clean(todo))
            )
        console.print(table)
        verdicts = [row["verdict"] for row in algorithm["checks"]]
        counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES if verdict in verdicts]
        say(console, f"{algorithm['name']}: {', '.join(counts)}", "bold")
