r"""`xpo-bench report --latex`: a report to `\input` into a paper, its tables with the rules of booktabs.

Curves are left out, which text draws with blocks: a paper has figures for them.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from xpo_bench.report.content import Report, Section
from xpo_bench.report.format import clean, counted
from xpo_bench.report.records import ARTICLE
from xpo_bench.report.render.latex_text import escape, foreign, slug
from xpo_bench.report.render.markdown import note
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.table import FOLDED, Column, Table
from xpo_bench.version import __version__

PACKAGES = (r"\usepackage[T1]{fontenc}", r"\usepackage{array,booktabs,graphicx}")
WIDTH = 96
"""Characters of a tabular, which a column of text nearly holds in \\footnotesize; wider ones are split."""
LINES = 40
"""Lines of all tabulars of one float, which fit on a page with their caption."""
INTERVAL = "± is half a 95 % interval over seeds (Student t)."
_COUNTED = re.compile(r"\d seeds?\b")
FIT = r"""\providecommand{\xpofit}[1]{\sbox0{#1}% narrower where the column of text is
  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}"""


def latex(report: Report, command: Sequence[str]) -> str:
    """The LaTeX of a report.

    Args:
        command: that makes it, for the comment at the top.
    """
    groups = group(report.shown)
    labels = _Labels(report.name)
    sections = sorted(report.sections, key=lambda s: s.detail)
    parts = [_section(s, _seeds(s, groups), labels) for s in sections if s.tables or s.sentences]
    body = "\n\n".join([FIT, *parts])
    return f"{_head(report, command, body)}\n{body}\n"


def _head(report: Report, command: Sequence[str], body: str) -> str:
    lines = [f"xpo-bench {__version__}: {_words(command)}"]
    # of a run from Python there is no command but the interpreter's
    ran = dict.fromkeys(_words(argv) for argv in report.document.commands if len(argv) > 1)
    lines += [f"the run: {words}" for words in ran]
    lines += [f"needs {PACKAGES[0]} (under pdfLaTeX alone)", f"needs {PACKAGES[1]}"]
    if unknown := foreign(body):
        lines.append(f"needs XeLaTeX or LuaLaTeX, and a font that has {' '.join(unknown)}")
    return "\n".join(f"% {line}" for line in lines)


def _words(argv: Sequence[str]) -> str:
    return shlex.join(map(clean, argv))


class _Labels:
    """Makes a label for every float, which names the run: a paper may have the tables of several."""

    def __init__(self, run: str) -> None:
        self._run = slug(run)
        self._made: Counter[str] = Counter()

    def next(self, section: Section) -> str:
        """`tab:run-verdict`, then `tab:run-verdict-2`, ..."""
        name = f"task {section.title}" if section.name == "task" else section.name
        stem = "-".join(filter(None, ("tab:" + self._run, slug(name))))
        self._made[stem] += 1
        return stem if self._made[stem] == 1 else f"{stem}-{self._made[stem]}"


def _seeds(section: Section, groups: Sequence[SeedGroup]) -> str:
    """`n = 3 seeds.` or `n = 1 to 3 seeds.`; nothing of what was run, which lists them."""
    experiment = section.name == "experiment"
    own = [g for g in groups if (g.records[0].suite == ARTICLE) == experiment]
    of_task = [g for g in groups if section.name == "task" and clean(g.task) == section.title]
    sizes = {len({r.seed for r in g.records}) for g in of_task or own or groups}
    if section.name == "ran" or not sizes:
        return ""
    low, high = min(sizes), max(sizes)
    return f"n = {f'{low} to ' if low < high else ''}{counted(high, 'seed')}."


def _section(section: Section, seeds: str, labels: _Labels) -> str:
    parts = [
        floated for table in section.tables for floated in _floats(table, seeds, lambda: labels.next(section))
    ]
    # what a table says comes before what is said of it, as on a terminal; elsewhere sentences lead
    parts.insert(len(parts) if section.name == "verdict" else 0, _list(section))
    return "\n\n".join([f"% {escape(section.title)}", *filter(None, parts)])


def _list(section: Section) -> str:
    if not section.sentences:
        return ""
    items = [rf"  \item {escape(sentence)}" for sentence in section.sentences]
    lines = [rf"\paragraph{{{escape(section.title)}}}", r"\begin{itemize}", *items, r"\end{itemize}"]
    return "\n".join(lines)


def _floats(table: Table, seeds: str, label: Callable[[], str]) -> list[str]:
    """The table, and where it is longer than a page its further parts."""
    blocks = table.blocks(WIDTH)
    return [
        _float(table, blocks, rows, _caption(table, seeds, first=part == 0), label())
        for part, rows in enumerate(_pages(table, len(blocks)))
    ]


def _float(table: Table, blocks: Sequence[Sequence[Column]], rows: range, caption: str, label: str) -> str:
    drawn = "\n\n  \\medskip\n".join(_tabular(columns, rows) for columns in blocks)
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
            f"  {caption}",
            rf"  \label{{{label}}}\par\smallskip",
            drawn,
            r"\end{table}",
        ]
    )


def _caption(table: Table, seeds: str, first: bool) -> str:
    """The title, what the numbers and marks mean, and how many seeds there were."""
    if not first:
        return rf"\caption{{{escape(table.title)}, continued.}}"
    told = f"{table.title}. {note(table)}".rstrip()
    unexplained = "±" not in told and any("±" in cell for column in table.columns for cell in column.cells)
    said = [told, INTERVAL if unexplained else "", "" if _COUNTED.search(table.title) else seeds]
    return rf"\caption[{escape(table.title)}]{{{escape(' '.join(filter(None, said)))}}}"


def _pages(table: Table, blocks: int) -> list[range]:
    """The rows of each float: as many as have `LINES` lines in all blocks, and one at least."""
    out, start, used = [], 0, 0
    for i in range(table.rows):
        lines = max(-(-len(c.cells[i]) // FOLDED) if c.text else 1 for c in table.columns) * blocks
        if i > start and used + lines > LINES:
            out.append(range(start, i))
            start, used = i, 0
        used += lines
    return [*out, range(start, table.rows)]


def _tabular(columns: Sequence[Column], rows: range) -> str:
    lines = [
        rf"  \xpofit{{\begin{{tabular}}{{{''.join(map(_kind, columns))}}}",
        r"    \toprule",
        _row([_header(c) for c in columns]),
        r"    \midrule",
        *(_row([_cell(c, i) for c in columns]) for i in rows),
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return rf"    {' & '.join(cells)} \\"


def _kind(column: Column) -> str:
    """Running text gets its width, at half an em a character."""
    if column.text:
        return rf">{{\raggedright\arraybackslash}}p{{{column.width / 2:g}em}}"
    return "l" if column.left else "r"


def _header(column: Column) -> str:
    parts = [escape(part) for part in (column.header or "algorithm").split("\n") if part]
    if len(parts) == 1:
        return parts[0]
    side, stacked = "l" if column.left else "r", r"\\".join(parts)
    return rf"\shortstack[{side}]{{{stacked}}}"


def _cell(column: Column, i: int) -> str:
    text = escape(column.cells[i])
    return rf"\textbf{{{text}}}" if column.best and column.best[i] else text
