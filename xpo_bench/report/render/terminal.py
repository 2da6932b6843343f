"""The tables of a run, from its records alone, readable at 80 columns and at 200."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from xpo_bench.report.findings import findings
from xpo_bench.report.format import clean
from xpo_bench.report.runs import Record, SeedGroup, group
from xpo_bench.report.table import bullet, draw, say
from xpo_bench.report.tables.columns import unlearns
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.listing import print_doctor, print_list, print_status
from xpo_bench.report.tables.scoreboard import print_scoreboard
from xpo_bench.report.tables.target_kl import print_targets
from xpo_bench.report.tables.task import print_task
from xpo_bench.report.tables.tuning import tuned_sheets

__all__ = ["print_doctor", "print_list", "print_run", "print_status"]

SEARCH = " search"
"""How the experiment of a cell ends that `--target-kl` or `--protocol tuned` only tried on its way; tables
leave it out.
"""


def print_run(
    console: Console,
    records: Sequence[Record],
    skipped: Sequence[Mapping[str, Any]] = (),
    unreachable: Sequence[Mapping[str, Any]] = (),
    targets: Sequence[Mapping[str, Any]] = (),
    tuning: Sequence[Mapping[str, Any]] = (),
    groups: Sequence[SeedGroup] | None = None,
) -> None:
    """The scoreboard, one table per task, what they show, and what was left out or went wrong.

    Forget/retain tasks hold no preferences: they have tables of their own and stay off the scoreboard.

    Args:
        skipped: {algorithm, task, reason} of combinations that were not planned.
        unreachable: {task, reason} of tasks whose data cannot be had.
        targets: what `--target-kl` found, see `print_targets`.
        tuning: what the tuned protocol chose, see `tuned_sheets`.
        groups: the records without those of searches, gathered, where the caller has them already.
    """
    every = records
    records = without_search(records)
    groups = group(records) if groups is None else groups
    if groups:
        if board := [g for g in groups if not unlearns(g)]:
            print_scoreboard(console, board)
        for sheet in tuned_sheets(tuning, every):
            draw(console, sheet.title, sheet.columns)
            say(console, sheet.note, "dim")
            console.print()
        for task in dict.fromkeys(g.task for g in groups):
            print_task(console, task, [g for g in groups if g.task == task])
        told = findings(groups)
        if told:
            say(console, "What the numbers show", "bold")
            for sentence in told:
                bullet(console, sentence)
    if lines := data_lines(records):
        say(console, "Data", "bold")
        for line in lines:
            bullet(console, line)
    wrong = problems(records)
    if wrong:
        say(console, "Not ok", "bold")
        for line in wrong:
            bullet(console, line)
    for line in failed_metrics(records):
        say(console, line, "dim")
    lines = [f"{s.get('task')}: {s.get('reason')}" for s in unreachable]
    lines += left_out(skipped)
    for line in lines:
        say(console, f"not run: {line}", "dim")
    if targets:
        print_targets(console, targets)


def without_search(records: Sequence[Record]) -> Sequence[Record]:
    """The records without those that a search only tried on its way, and the tuned ones, unless there are no
    others.

    Tuned configurations have a table of their own, beside the defaults.
    """
    return [
        r for r in records if not str(r.get("experiment")).endswith(SEARCH) and not r.get("protocol")
    ] or records


def problems(records: Sequence[Record]) -> list[str]:
    """One line per cell that is not ok; divergence that the task expects is said to be so."""
    lines = []
    for r in records:
        if r["status"] != "ok":
            expected = r["status"] == "diverged" and r["task"].get("expected_divergence")
            message = (
                "as the task expects" if expected else (r.get("error") or {}).get("message") or "no message"
            )
            if r["status"] == "diverged" and not expected and not r.get("error"):
                message = "loss, gradient or a parameter was no longer finite"
            lines.append(
                f"{r['algorithm']['name']} on {r['task']['name']}, seed {r['seed']}: {r['status']}: {message}"
            )
    return lines


def failed_metrics(records: Sequence[Record]) -> list[str]:
    """One line per metric of a plugin and way in which it failed: in how many cells it was left out."""
    counts: Counter[tuple[str, str]] = Counter()
    for r in records:
        counts.update((r.get("notes") or {}).get("metric_errors", {}).items())
    return [
        f"metric {clean(name)}: left out of {n} cell{'s' * (n != 1)}: {clean(why)}"
        for (name, why), n in counts.items()
    ]


def left_out(skipped: Sequence[Mapping[str, Any]]) -> list[str]:
    """Algorithms that share a task and a reason in one line."""
    together: dict[tuple[str, str], list[str]] = {}
    for s in skipped:
        together.setdefault((str(s.get("task")), str(s.get("reason"))), []).append(str(s.get("algorithm")))
    return [f"{', '.join(names)} on {task}: {reason}" for (task, reason), names in together.items()]
