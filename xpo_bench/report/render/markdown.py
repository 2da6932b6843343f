"""`xpo-bench report --md`: a report for a pull request, all names and texts escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xpo_bench.report.content import Report, Section
from xpo_bench.report.format import clean
from xpo_bench.report.table import Column, Table
from xpo_bench.report.tables.sparklines import spark_tables
from xpo_bench.report.tables.task import MARKED

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$#!])")


def escape(text: object) -> str:
    """One line of text that Markdown shows as it is: no markup, HTML, link, mention or issue number."""
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _SPECIAL.sub(r"\\\1", plain)
    # GitHub links bare addresses, mentions and issue numbers; an empty comment within them ends that
    return re.sub(r"(?i)(https?|ftp|mailto|xmpp)(:)|(www)(\.)", _unlink, plain).replace("@", "@<!-- -->")


def _unlink(address: re.Match[str]) -> str:
    return f"{address[1] or address[3]}<!-- -->{address[2] or address[4]}"


def markdown(report: Report) -> str:
    """The Markdown of a report: what matters first, details folded away below."""
    sections = sorted(report.sections, key=lambda s: s.detail)
    curves = Section("curves", "Curves", tables=spark_tables(report.drawn, report.curves), detail=True)
    parts = [_section(s) for s in (*sections, curves) if s.tables or s.sentences]
    return "\n\n".join([f"# xpo-bench: {escape(report.name)}", *parts]) + "\n"


def _section(section: Section) -> str:
    title, parts = section.title, []
    for table in section.tables:
        if table.title != title:
            parts.append(f"**{escape(table.title)}**")
        parts += [sheet_table(table), escape(note(table))]
    # what a table says comes before what is said of it, as on a terminal; elsewhere sentences lead
    parts.insert(len(parts) if section.name == "verdict" else 0, _bullets(section.sentences))
    if section.detail:
        head = ["<details>", f"<summary>{escape(title)}</summary>"]
        return "\n\n".join([*head, *filter(None, parts), "</details>"])
    return "\n\n".join([f"## {escape(title)}", *filter(None, parts)])


def note(table: Table) -> str:
    """The note of a table whose best is bold, with what ± means."""
    if MARKED not in table.note:
        return table.note
    rest = " ".join(table.note.replace(MARKED, "").split())
    return f"Mean ± half its 95 % interval over seeds; bold: {MARKED.removeprefix('* ')} {rest}".rstrip()


def sheet_table(table: Table) -> str:
    """A table of Markdown, all cells escaped."""
    header = [escape(c.name) or "algorithm" for c in table.columns]
    rule = [":--" if c.left else "--:" for c in table.columns]
    rows = [[_cell(c, i) for c in table.columns] for i in range(table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _cell(column: Column, i: int) -> str:
    text = escape(column.cells[i])
    return f"**{text}**" if column.best and column.best[i] else text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
