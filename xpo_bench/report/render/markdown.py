"""`xpo-bench report --md`: scoreboard, tables and findings for a pull request, all names and texts escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench.report.experiments.base import (
    EXPERIMENTS,
    columns,
    curve_reader,
    measure,
    of_experiments,
    others,
)
from xpo_bench.report.findings import findings
from xpo_bench.report.format import clean
from xpo_bench.report.render.terminal import left_out, problems, without_search
from xpo_bench.report.runs import Record, group
from xpo_bench.report.table import Column, Table
from xpo_bench.report.tables.columns import unlearns
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.scoreboard import board
from xpo_bench.report.tables.task import task_sheets
from xpo_bench.report.tables.tuning import tuned_sheets

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$#!])")


def escape(text: object) -> str:
    """One line of text that Markdown shows as it is: no markup, HTML, link, mention or issue number."""
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _SPECIAL.sub(r"\\\1", plain)
    return re.sub(r"(?i)(https?|ftp|mailto|xmpp)(:)|(www)(\.)", _unlink, plain).replace("@", "@<!-- -->")


def _unlink(found: re.Match[str]) -> str:
    return f"{found[1] or found[3]}<!-- -->{found[2] or found[4]}"


def markdown(root: Path, records: Sequence[Record], document: Mapping[str, Any]) -> str:
    """The Markdown of a report.

    Args:
        root: the run directory. records, document: its records and its run.json, or an empty dictionary.
    """
    name, shown = root.resolve().name, without_search(records)
    rest = others(shown)
    groups = group(rest)
    out = [f"# xpo-bench: {escape(name)}"]
    for experiment, cells in of_experiments(shown).items():
        e = EXPERIMENTS[experiment]
        data = measure(e, cells, curve_reader(root))
        tables = [
            f"**{escape(heading)}**\n\n{sheet_table(Table(heading, columns(rows)))}"
            for heading, table in e.tables
            if (rows := table(data))
        ]
        out += [f"## {escape(experiment)}: {escape(e.title)}", _bullets(e.findings(data)), *tables]
    if ranked := [g for g in groups if not unlearns(g)]:
        sheet = board(ranked)
        note = "Mean ± half its 95 % interval over seeds; bold: best mean of its column. "
        note += sheet.note.replace("* best mean of its column.", "").replace("  ", " ")
        out += [f"## {escape(sheet.title)}", sheet_table(sheet), escape(note)]
    for sheet in tuned_sheets(document.get("tuning") or [], records):
        out += [f"## {escape(sheet.title)}", sheet_table(sheet), escape(sheet.note)]
    if told_of := findings(groups):
        out += ["## What the numbers show", _bullets(told_of)]
    if lines := data_lines(shown):
        out += ["## Data", _bullets(lines)]
    if wrong := problems(rest):
        out += ["## Not ok", _bullets(wrong)]
    lines = [f"{u.get('task')}: {u.get('reason')}" for u in document.get("unreachable") or []]
    if lines := lines + left_out(document.get("skipped") or []):
        out += ["## Not run", _bullets(lines)]
    for task in dict.fromkeys(g.task for g in groups):
        tables = []
        for sheet in task_sheets(task, [g for g in groups if g.task == task]):
            tables += [f"**{escape(sheet.title)}**", sheet_table(sheet), escape(sheet.note)]
        out += [
            "\n\n".join(
                ["<details>", f"<summary>{escape(task)}</summary>", *filter(None, tables), "</details>"]
            )
        ]
    return "\n\n".join(out) + "\n"


def sheet_table(sheet: Table) -> str:
    """A table of Markdown, all cells escaped."""
    columns = sheet.columns
    header = [escape(c.header.replace("_\n", "_")) or "algorithm" for c in columns]
    rule = [":--" if c.left else "--:" for c in columns]
    rows = [[_cell(c, i) for c in columns] for i in range(len(columns[0].cells))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _cell(column: Column, i: int) -> str:
    text = escape(column.cells[i])
    return f"**{text}**" if column.best and column.best[i] else text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
