"""ONE assembly of a report as data: its tables, sentences and figures. Every renderer takes it whole.

Terminal, Markdown, page and JSON differ in how they draw, not in what they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xpo_bench.report.curves import Curves, curve_reader, forgiving
from xpo_bench.report.experiments import EXPERIMENTS, of_experiments, others
from xpo_bench.report.figures import (
    ExperimentFigure,
    Figure,
    sweep_figures,
    task_figures,
    throughput_figures,
)
from xpo_bench.report.findings import findings
from xpo_bench.report.format import clean, statuses
from xpo_bench.report.problems import failed_metrics, not_run, problems
from xpo_bench.report.provenance import configurations, machines, task_settings
from xpo_bench.report.records import Raw, Record, RunFile, records_of
from xpo_bench.report.runs import SeedGroup, group, without_search
from xpo_bench.report.table import Table
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.equal_cost import MatchedMetrics, matched_metrics, matched_tables
from xpo_bench.report.tables.scoreboard import scoreboard
from xpo_bench.report.tables.target_kl import target_lines, target_tables
from xpo_bench.report.tables.task import task_tables
from xpo_bench.report.tables.tuning import tuning_tables
from xpo_bench.report.tables.versus import against, rank_line, versus_table


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a report, under one title.

    Args:
        name: what kind of part it is; several tasks and experiments have the same. detail: whether it is for
            reading on, which Markdown folds away.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    detail: bool = False

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.sentences or self.tables or self.figures)


@dataclass(frozen=True, eq=False)
class Report:
    """What a run says.

    Args:
        name: of the run. counts: cells by status. created: when the last of them was.
        sections: in the order in which a terminal prints them, what matters most last.
        records: all of them. shown: without those of searches. groups: the rows of the tables.
        matched: metrics at matched cost, of the rows whose curves were read.
        unread: rows whose curves were not read, since nothing draws them.
    """

    name: str
    counts: str
    created: str
    document: RunFile
    sections: Sequence[Section]
    records: Sequence[Record]
    shown: Sequence[Record]
    groups: Sequence[SeedGroup]
    matched: Sequence[MatchedMetrics]
    curves: Curves
    unread: int

    @cached_property
    def drawn(self) -> Sequence[SeedGroup]:
        """The rows whose curves were read."""
        return self.groups[: len(self.groups) - self.unread]

    @property
    def tables(self) -> list[Table]:
        """Of all sections."""
        return [table for section in self.sections for table in section.tables]

    def sentences(self, name: str) -> list[str]:
        """Of the sections of one kind."""
        return [line for section in self.sections if section.name == name for line in section.sentences]


@dataclass(frozen=True)
class Comparison:
    """What algorithms are tested against: a baseline, by the headline of each task or by a metric."""

    baseline: str
    metric: str | None = None


def assemble(
    root: Path,
    records: Iterable[Raw | Record],
    document: Raw | None = None,
    *,
    comparison: Comparison | None = None,
    rows: int | None = None,
) -> Report:
    """Everything that a report says of a run.

    Args:
        root: the run directory, whose curves are read. records: its records. document: its run.json, or what
            of it is known.
        comparison: also test every algorithm against one of them.
        rows: of how many rows the curves are read, at most; of all by default.

    Raises:
        UsageError: the comparison names no algorithm, or no metric to compare by.
    """
    every = records_of(records)
    shown = without_search(every)
    rest = others(shown)
    groups, told = group(rest), RunFile.of(document if document else {})
    curves = forgiving(curve_reader(root))
    drawn = groups[:rows]
    matched = matched_metrics(drawn, curves)
    # data to forget holds no preferences: its algorithms have a table of their own
    ranked = [g for g in groups if not g.unlearns]
    sections = [
        *_experiments(shown, curves),
        *([_scoreboard(ranked)] if ranked else []),
        Section("tuned", "Default and tuned", tables=tuning_tables(told.tuning, every)),
        Section("target", "Of the target", target_lines(told.targets), target_tables(told.targets)),
        *_tasks(groups, drawn, curves),
        Section("matched", "At matched cost", tables=matched_tables(matched), detail=True),
        Section("sweeps", "Sweeps", figures=sweep_figures(groups)),
        Section("throughput", "Throughput", figures=throughput_figures(groups)),
        *([_against(group(shown), comparison)] if comparison else []),
        _what_was_run(shown, every),
        Section("data", "Data", data_lines(shown)),
        Section("findings", "What the numbers show", findings(groups)),
        Section("not_ok", "Not ok", problems(rest)),
        Section("metrics", "Metrics left out", failed_metrics(rest)),
        Section("not_run", "Not run", not_run(told)),
    ]
    return Report(
        name=root.resolve().name,
        counts=statuses(Counter(r.status for r in every)),
        created=max((r.created or "" for r in every), default=""),
        document=told,
        sections=[section for section in sections if section],
        records=every,
        shown=shown,
        groups=groups,
        matched=matched,
        curves=curves,
        unread=len(groups) - len(drawn),
    )


def _scoreboard(groups: Sequence[SeedGroup]) -> Section:
    table = scoreboard(groups)
    return Section("scoreboard", table.title, tables=[table])


def _experiments(records: Sequence[Record], curves: Curves) -> list[Section]:
    out = []
    for name, cells in of_experiments(records).items():
        e = EXPERIMENTS[name]
        data = e.data(cells, curves)
        figures = [ExperimentFigure(e.title, plot, data) for plot in e.figures.values()]
        out.append(Section("experiment", f"{name}: {e.title}", e.findings(data), e.shown(data), figures))
    return out


def _tasks(groups: Sequence[SeedGroup], drawn: Sequence[SeedGroup], curves: Curves) -> list[Section]:
    by_task: dict[str, list[SeedGroup]] = {}
    for g in groups:
        by_task.setdefault(g.task, []).append(g)
    kept = set(drawn)
    return [
        Section(
            "task",
            clean(task),
            tables=task_tables(task, rows),
            figures=task_figures(task, [g for g in rows if g in kept], curves),
            detail=True,
        )
        for task, rows in by_task.items()
    ]


def _against(groups: Sequence[SeedGroup], comparison: Comparison) -> Section:
    rows = against(groups, comparison.baseline, comparison.metric)
    title = f"Against {clean(comparison.baseline)}"
    if not rows:
        nothing = "nothing to compare: no other algorithm on a task of it has its metric"
        return Section("against", title, [nothing])
    lines = rank_line(groups, comparison.metric)
    return Section("against", title, lines, [versus_table(rows, comparison.baseline)])


def _what_was_run(shown: Sequence[Record], every: Sequence[Record]) -> Section:
    tables = [configurations(shown), task_settings(shown)] if shown else []
    return Section("ran", "What was run", machines(every), tables, detail=True)
