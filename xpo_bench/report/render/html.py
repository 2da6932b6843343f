"""`xpo-bench report --html`: one self-contained page made of a run's records and curves.

It fetches nothing and its policy (CSP) lets it fetch nothing; the one script sorts tables and hides columns
and lines, and the page is whole without it. Names and texts from plugins, data and records are text: the
template escapes them all.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from xpo_bench import plugins
from xpo_bench.report.experiments.base import (
    EXPERIMENTS,
    Curves,
    Data,
    columns,
    curve_reader,
    measure,
    of_experiments,
    others,
)
from xpo_bench.report.experiments.files import FIGURES
from xpo_bench.report.findings import findings
from xpo_bench.report.format import ABSENT, PREFIXES, clean
from xpo_bench.report.render import curves as charts
from xpo_bench.report.render.terminal import left_out, problems, without_search
from xpo_bench.report.reproduce import command
from xpo_bench.report.runs import Record, SeedGroup, group
from xpo_bench.report.table import Table
from xpo_bench.report.tables.columns import unlearns
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.scoreboard import board
from xpo_bench.report.tables.task import task_sheets
from xpo_bench.report.tables.tuning import tuned_sheets

_LEADING = re.compile(r"\s*(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:±\S+)?(?: ([kMGTPEZ]))?")


def page(root: Path, records: Sequence[Record], document: Mapping[str, Any]) -> str:
    """The HTML of a report.

    Args:
        root: the run directory, whose curves are read. records: its records. document: its run.json, or
            empty.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return (
        _environment()
        .get_template("report.html")
        .render(
            **_content(root, records, document),
            style=Markup(style),
            script=Markup(script),
            style_hash=Markup(_hash(style)),
            script_hash=Markup(_hash(script)),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("xpo_bench.report", "templates"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sort_key"] = sort_key
    environment.filters["lines"] = lines
    return environment


def _asset(name: str) -> str:
    return (resources.files("xpo_bench.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content-security policy names an inline style or script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def sort_key(cell: str) -> str:
    """The number that a cell begins with, its SI prefix multiplied out; empty for – and texts."""
    found = _LEADING.match(cell)
    if not found or cell.startswith(ABSENT):
        return ""
    return repr(float(found[1]) * 1000.0 ** PREFIXES.index(found[2] or ""))


def lines(text: str) -> Markup:
    """Text of several lines, each cleaned, escaped, for `<pre>`."""
    return Markup("\n").join(clean_line(line) for line in str(text).splitlines())


def clean_line(line: str) -> str:
    """A line as `clean` leaves it, with its indentation."""
    return " " * (len(line) - len(line.lstrip(" "))) + clean(line)


# --------------------------------------------------------------------------- content


@dataclass(frozen=True)
class TaskPart:
    """What the page shows of one task."""

    name: str
    anchor: str
    sheets: Sequence[Table]
    figures: Sequence[charts.Chart]


@dataclass(frozen=True)
class ExperimentPart:
    """One of the article's experiments."""

    title: str
    sheets: Sequence[Table]
    findings: Sequence[str]
    figures: Sequence[charts.Chart]


@dataclass(frozen=True)
class AlgorithmPart:
    """One algorithm: what it is and how to compute its cells again."""

    name: str
    anchor: str
    about: str
    source: str
    origin: str
    fields: Sequence[tuple[str, str, str]]
    cells: Sequence[tuple[str, Sequence[tuple[Record, str]]]]


def _content(root: Path, records: Sequence[Record], document: Mapping[str, Any]) -> dict[str, Any]:
    shown = without_search(records)
    rest = others(shown)
    groups = group(rest)
    curves = _careful(curve_reader(root))
    studio, look = charts.Studio(), charts.LineStyles.of(g.label for g in groups)
    registry = plugins.load()
    ranked = [g for g in groups if not unlearns(g)]
    own, shared = charts.throughput(studio, groups)
    return {
        "name": root.resolve().name,
        "counts": _counts(records),
        "created": sorted(str(r.get("created") or "") for r in records)[-1],
        "findings": findings(groups),
        "problems": problems(rest),
        "board": board(ranked) if ranked else None,
        "tuned": tuned_sheets(document.get("tuning") or [], records),
        "tasks": _tasks(studio, groups, curves, look),
        "experiments": _experiments(studio, shown, curves),
        "sweeps": charts.sweeps(studio, groups),
        "own_clock": own,
        "shared_clock": shared,
        "algorithms": _algorithms(
            [r for r in records if (r.get("protocol") or {}).get("role") != "trial"], registry
        ),
        "ran": _ran(shown),
        "setting": _settings(shown),
        "data": data_lines(shown),
        "machines": _machines(records),
        "commands": [
            shlex.join(clean(w) for w in c.get("argv", []))
            for c in document.get("commands") or []
            if isinstance(c, dict)
        ],
        "left_out": [f"{u.get('task')}: {u.get('reason')}" for u in document.get("unreachable") or []]
        + left_out(document.get("skipped") or []),
    }


def _careful(read: Curves) -> Curves:
    """Reads each curve once; one that cannot be read is no curve."""
    kept: dict[str, Sequence[Mapping[str, Any]]] = {}

    def curve(record: Record) -> Sequence[Mapping[str, Any]]:
        key = str(record["key"])
        if key not in kept:
            try:
                kept[key] = [p for p in read(record) if p.get("step") is not None]
            except (OSError, ValueError):
                kept[key] = []
        return kept[key]

    return curve


def _counts(records: Sequence[Record]) -> str:
    counts: dict[str, int] = {}
    for r in records:
        counts[str(r["status"])] = counts.get(str(r["status"]), 0) + 1
    return ", ".join(
        f"{n} {s}" for s, n in sorted(counts.items(), key=lambda item: (item[0] != "ok", item[0]))
    )


def _tasks(
    studio: charts.Studio, groups: Sequence[SeedGroup], curves: Curves, look: charts.LineStyles
) -> list[TaskPart]:
    out = []
    for i, task in enumerate(dict.fromkeys(g.task for g in groups)):
        here = [g for g in groups if g.task == task]
        known = {g: charts.series(g, curves) for g in here}
        figures = [
            charts.frontier(studio, task, here, known, curves, look),
            charts.task_curves(studio, task, here, known, look),
        ]
        out.append(TaskPart(clean(task), f"task-{i}", task_sheets(task, here), [f for f in figures if f]))
    return out


def _experiments(studio: charts.Studio, records: Sequence[Record], curves: Curves) -> list[ExperimentPart]:
    out = []
    for name, cells in of_experiments(records).items():
        e = EXPERIMENTS[name]
        data = measure(e, cells, curves)
        sheets = [Table(heading, columns(rows)) for heading, table in e.tables if (rows := table(data))]
        drawn = [
            studio.chart(partial(_upright, draw, data), f"{e.title}: {stem}")
            for stem, draw in FIGURES[name].items()
        ]
        out.append(ExperimentPart(f"{name}: {e.title}", sheets, e.findings(data), [f for f in drawn if f]))
    return out


def _upright(draw: Callable[[Data], Any], data: Data) -> Any:
    """Powers of ten on logarithmic axes as plain text, since the page reads no markup."""
    from matplotlib.ticker import NullFormatter

    figure = draw(data)
    for ax in figure.axes if figure is not None else ():
        for axis in (ax.xaxis, ax.yaxis):
            if "Log" in type(axis.get_major_formatter()).__name__:
                axis.set_major_formatter(lambda v, _: charts.power(v))
            if "Log" in type(axis.get_minor_formatter()).__name__:
                axis.set_minor_formatter(NullFormatter())
    return figure


# --------------------------------------------------------------------------- what was run


def _algorithms(records: Sequence[Record], registry: plugins.Registry) -> list[AlgorithmPart]:
    out = []
    every = group(records)
    for i, name in enumerate(sorted({str(r["algorithm"]["name"]) for r in records})):
        mine = [g for g in every if g.records[0]["algorithm"]["name"] == name]
        recorded = mine[0].records[0]["algorithm"]
        cls = registry.algorithms[name][0] if name in registry.algorithms else None
        origin = (
            f"plugin {recorded.get('plugin')} of {recorded.get('distribution')} {recorded.get('version')}"
        )
        if cls is None:
            origin += "; not installed where this page was made, so that its equation is missing"
        elif (info := registry.algorithms[name][1]).version != recorded.get("version"):
            origin += f"; what is told here is of version {info.version}"
        cells = [(f"{g.label} on {g.task}", [(r, command(r, registry)) for r in g.records]) for g in mine]
        out.append(
            AlgorithmPart(
                name, f"algorithm-{i}", _about(cls), cls.source if cls else "", origin, _fields(cls), cells
            )
        )
    return out


def _about(cls: type | None) -> str:
    """The docstring of a class or, where it has none, of its module."""
    if cls is None:
        return ""
    module = sys.modules.get(cls.__module__)
    for text in (cls.__dict__.get("__doc__"), module.__doc__ if module else None):
        # a dataclass without a docstring gets its signature as one
        if text and not text.startswith(f"{cls.__name__}("):
            return inspect.cleandoc(text)
    return ""


def _fields(cls: type | None) -> list[tuple[str, str, str]]:
    """(field, default, meaning) of the hyperparameters."""
    if cls is None:
        return []
    from xpo_bench.runner.settings import docs, dump

    try:
        defaults = dump(cls())
    except TypeError:  # a field without a default
        defaults = {}
    return [(name, str(defaults.get(name, ABSENT)), text) for name, text in docs(cls).items()]


def _ran(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """(algorithm, configuration, plugin, distribution, version, tasks) of every configuration."""
    found: dict[tuple[str, ...], list[str]] = {}
    for r in records:
        a = r["algorithm"]
        config = ", ".join(
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in a["config"].items()
        )
        row = tuple(
            str(x)
            for x in (a["name"], config or ABSENT, a.get("plugin"), a.get("distribution"), a.get("version"))
        )
        found.setdefault(row, []).append(str(r["task"]["name"]))
    return [(*row, ", ".join(dict.fromkeys(sorted(tasks)))) for row, tasks in sorted(found.items())]


def _settings(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """(task, version, policy, data, rows, budget, options, seeds) of every setting of a task."""
    found: dict[tuple[str, ...], set[str]] = {}
    for r in records:
        t = r["task"]
        data, budget = t.get("data") or {}, t.get("budget") or {}
        model = t.get("model") or {}
        size = f" ({model['parameters']} parameters)" if model.get("parameters") else ""
        dropped = sum((data.get("dropped") or {}).values())
        rows = f"{data.get('train', ABSENT)} + {data.get('heldout', ABSENT)} held out{f', {dropped} dropped' if dropped else ''}"
        train = r.get("train") or {}
        spent = [
            f"{budget.get('steps')} steps",
            f"batch {budget.get('batch_size')}",
            str(train.get("optimizer")),
            str(budget.get("dtype")),
        ]
        options = (
            ", ".join(f"{k}={v}" for k, v in (t.get("options") or {}).items() if v is not None) or ABSENT
        )
        parts = (
            t["name"],
            t.get("version"),
            f"{model.get('name')}{size}",
            data.get("source"),
            rows,
            ", ".join(spent),
            options,
        )
        found.setdefault(tuple(map(str, parts)), set()).add(str(r["seed"]))
    return [
        (*row, ", ".join(sorted(seeds, key=lambda s: (len(s), s)))) for row, seeds in sorted(found.items())
    ]


def _machines(records: Iterable[Record]) -> list[str]:
    """What the cells ran on, each kind of machine once."""
    out: dict[str, int] = {}
    for r in records:
        e = r.get("environment") or {}
        packages = ", ".join(f"{name} {version}" for name, version in (e.get("packages") or {}).items())
        facts = [e.get("accelerator"), e.get("processor"), e.get("platform"), f"device {e.get('device')}"]
        facts += [f"{e[k]} {k}" for k in ("cores", "threads") if k in e]
        facts += [f"Python {e['python']}"] if "python" in e else []
        text = ", ".join(str(f) for f in [*facts, packages] if f)
        out[text] = out.get(text, 0) + 1
    return [f"{n} cells: {text}" if len(out) > 1 else text for text, n in out.items()]
