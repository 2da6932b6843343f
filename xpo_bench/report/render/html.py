"""`xpo-bench report --html`: a report as one self-contained page.

It fetches nothing and its policy (CSP) lets it fetch nothing; the one script sorts tables and hides columns
and lines, and the page is whole without it. Names and texts from plugins, data and records are text: the
template escapes them all.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from xpo_bench import plugins
from xpo_bench.report.content import Report, Section
from xpo_bench.report.format import ABSENT, PREFIXES, clean
from xpo_bench.report.reference import reference
from xpo_bench.report.render.drawing import Chart, Studio
from xpo_bench.report.render.figures import charts, styles_of
from xpo_bench.report.render.markdown import note
from xpo_bench.report.render.svg import INK

FIRST = ("verdict", "findings", "not_ok")
"""Kinds of sections that the page begins with; a terminal ends with the last two, where its reader is."""
_LEADING = re.compile(r"\s*(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:±\S+)?(?: ([kMGTPEZ]))?")


@dataclass(frozen=True)
class Part:
    """A section of the page: its anchor, and its figures drawn."""

    section: Section
    anchor: str
    charts: Sequence[Chart]


def page(report: Report) -> str:
    """The HTML of a report."""
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            parts=_parts(report),
            algorithms=reference(report.records, plugins.load()),
            commands=[shlex.join(map(clean, argv)) for argv in report.document.commands],
            style=Markup(style),
            script=Markup(script),
            style_hash=Markup(_hash(style)),
            script_hash=Markup(_hash(script)),
        )
    )


def _parts(report: Report) -> list[Part]:
    """The sections in the order of the page; one whose figures have nothing to draw is left out."""
    figures = [figure for section in report.sections for figure in section.figures]
    studio, styles = Studio(), styles_of(figures, report)
    out: list[Part] = []
    for section in sorted(report.sections, key=lambda s: s.name not in FIRST):
        drawn = charts(section.figures, studio, styles)
        if drawn or section.sentences or section.tables:
            number = sum(part.section.name == section.name for part in out)
            out.append(Part(section, f"{section.name}-{number}" if number else section.name, drawn))
    return out


def environment() -> Environment:
    """Templates that escape and clean what they are given."""
    made = Environment(
        loader=PackageLoader("xpo_bench.report", "templates"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["sort_key"] = sort_key
    made.filters["lines"] = lines
    made.filters["ink"] = lambda colour: INK.get(colour, colour)
    made.filters["note"] = note
    return made


def _asset(name: str) -> str:
    return (resources.files("xpo_bench.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content-security policy names an inline style or script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def sort_key(cell: str) -> str:
    """The number that a cell begins with, its SI prefix multiplied out; empty for – and texts."""
    # the script sorts by this: `1.2±0.1 T` is above `900 G`
    leading = _LEADING.match(cell)
    if not leading or cell.startswith(ABSENT):
        return ""
    return repr(float(leading[1]) * 1000.0 ** PREFIXES.index(leading[2] or ""))


def lines(text: str) -> Markup:
    """Text of several lines, each cleaned, escaped, for `<pre>`."""
    return Markup("\n").join(clean_line(line) for line in str(text).splitlines())


def clean_line(line: str) -> str:
    """A line as `clean` leaves it, with its indentation."""
    return " " * (len(line) - len(line.lstrip(" "))) + clean(line)
