"""A report on a terminal, readable at 80 columns and at 200."""

from __future__ import annotations

from rich.console import Console

from xpo_bench.report.content import Report, Section
from xpo_bench.report.render.console import bullet, draw_table, say
from xpo_bench.report.tables.sparklines import BLOCKS, PLAIN, spark_tables

TITLED = ("experiment", "verdict")
"""Kinds of section whose title has been printed when their sentences come."""
CURVES_BEFORE = "ran"
"""The kind of section that curves are printed before."""


def print_report(console: Console, report: Report) -> None:
    """Every section: its tables, curves as lines of blocks, and its sentences. The answer opens it, and what
    was found, failed or left out is nearest to the prompt.
    """
    for section in report.sections:
        if section.name == CURVES_BEFORE:
            _print_curves(console, report)
        print_section(console, section)


def print_section(console: Console, section: Section) -> None:
    """Tables have titles of their own; the section's stands above its sentences."""
    if section.name == "experiment":
        say(console, section.title, "bold")
    for table in section.tables:
        draw_table(console, table)
    if not section.sentences:
        return
    if section.name not in TITLED:
        say(console, section.title, "bold")
    for sentence in section.sentences:
        bullet(console, sentence)
    console.print()


def _print_curves(console: Console, report: Report) -> None:
    """What a page draws as figures."""
    blocks = BLOCKS if (console.encoding or "").lower().replace("-", "").startswith("utf") else PLAIN
    for table in spark_tables(report.drawn, report.curves, blocks):
        draw_table(console, table)
    if report.unread:
        rows, read = len(report.groups), len(report.drawn)
        say(
            console,
            f"Of {rows} rows the curves of the first {read} were read; --json and report read all.",
            "dim",
        )
        console.print()
