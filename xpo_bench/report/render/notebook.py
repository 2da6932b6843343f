"""What a notebook shows of a result: its verdicts as a small table, with what is not ok."""

from __future__ import annotations

from xpo_bench.report.content import Report
from xpo_bench.report.render.html import environment

ROWS = 30
"""Rows of the table at most: a notebook is no report."""
SHOWN = ("verdict", "not_ok", "not_run")
"""Kinds of sections that are shown."""


def snippet(report: Report | None, line: str) -> str:
    """A few elements of HTML, without style or script of their own.

    Args:
        report: None where there is no record. line: what the result is, in one line.
    """
    sections = [s for s in report.sections if s.name in SHOWN] if report else []
    return environment().get_template("notebook.html").render(sections=sections, line=line)
