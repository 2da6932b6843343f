"""A report as a file, by its suffix."""

from __future__ import annotations

from collections.abc import Sequence

from xpo_bench.report.content import Report

SUFFIXES = (".html", ".md", ".tex", ".json")


def rendered(report: Report, suffix: str, command: Sequence[str]) -> str:
    """The text of the file.

    Args:
        suffix: one of `SUFFIXES`. command: what writes the LaTeX again, which stands in it.
    """
    # each renderer is imported alone: that of pages brings matplotlib
    if suffix == ".html":
        from xpo_bench.report.render.html import page

        return page(report)
    if suffix == ".md":
        from xpo_bench.report.render.markdown import markdown

        return markdown(report)
    if suffix == ".tex":
        from xpo_bench.report.render.latex import latex

        return latex(report, command)
    from xpo_bench.report.render.json import report_document
    from xpo_bench.runner.keys import canonical
    from xpo_bench.runner.store import finite

    return canonical(finite(report_document(report))) + "\n"
