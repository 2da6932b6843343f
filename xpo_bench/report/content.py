"""ONE assembly of a report as data: its tables, sentences and figures. Every renderer takes it whole.

Terminal, Markdown, page and JSON differ in how they draw, not in what they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xpo_bench.report.curves import Curves, curve_reader, forgiving
from xpo_bench.report.figures import (
    ExperimentFigure,
    Figure,
    sweep_figures,
    task_figures,
    throughput_figures,
)
from xpo_bench.report.filters import View
from xpo_bench.report.findings import findings
from xpo_bench.report.format import clean, counted, statuses
from xpo_bench.report.items import ItemReader, item_reader
from xpo_bench.report.problems import failed_metrics, not_run, problems
from xpo_bench.report.provenance import configurations, machines, task_settings
from xpo_bench.report.records import ARTICLE, Raw, Record, records_of
from xpo_bench.report.run_file import RunFile
from xpo_bench.report.runs import Identities, SeedGroup, group, latest, without_search
from xpo_bench.report.table import Table
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.equal_cost import MatchedMetrics, matched_metrics, matched_tables
from xpo_bench.report.tables.target_kl import target_lines, target_tables
from xpo_bench.report.tables.task import task_tables
from xpo_bench.report.tables.tuning import tuning_tables
from xpo_bench.report.tables.versus import (
    Against,
    against,
    default_baseline,
    label_of,
    versus_table,
)
from xpo_bench.report.verdicts.headline import moved
from xpo_bench.report.verdicts.over_tasks import over_tasks
from xpo_bench.report.verdicts.screen import Screen
from xpo_bench.report.verdicts.seeds import seeds_table
from xpo_bench.report.verdicts.task import TaskVerdict, verdict_on


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
        sections: in their order, the answer first.
        records: all of them. shown: without those of searches. groups: the rows of the tables.
        matched: metrics at matched cost, of the rows whose curves were read.
        verdicts: what is concluded on every task. against: every row against the baseline.
        items: how held-out items are read. unread: rows whose curves were not read, since nothing draws them.
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
    verdicts: Sequence[TaskVerdict]
    against: Sequence[Against]
    curves: Curves
    items: ItemReader
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
    """By what algorithms are compared.

    Args:
        baseline: what every other is tested against; dpo, or the first, where none is named. metric: in place
            of the headline of each task. plan_seeds: also tell how many seeds would separate them.
    """

    baseline: str | None = None
    metric: str | None = None
    plan_seeds: bool = False


def assemble(
    root: Path,
    records: Iterable[Raw | Record],
    document: Raw | None = None,
    *,
    comparison: Comparison | None = None,
    view: View | None = None,
    rows: int | None = None,
) -> Report:
    """Everything that a report says of a run.

    Args:
        root: the run directory, whose curves and items are read. records: its records. document: its
            run.json, or what of it is known.
        comparison: by what algorithms are compared. view: which of them, and in which order.
        rows: how many are drawn in a table and have their curves read, at most, without figures over all
            rows; by default all of everything.

    Raises:
        UsageError: the comparison or the view names what is not there.
    """
    asked, seen = comparison or Comparison(), view or View()
    every = records_of(records)
    told = RunFile.of(document if document else {})
    found = without_search(every)
    same = Identities()
    current = latest(found, told.planned, same)
    shown = seen.records(current)
    rest = _others(shown)
    curves, items = forgiving(curve_reader(root)), item_reader(root)
    groups = group(rest, same)
    # data to forget holds no preferences: its algorithms are compared by nothing
    ranked = [g for g in groups if not g.unlearns]
    verdicts = [
        verdict_on(task, rows_of, items, asked.metric) for task, rows_of in seen.by_task(ranked).items()
    ]
    groups = seen.ordered(groups, verdicts)
    drawn = groups[:rows]
    matched = matched_metrics(drawn, curves)
    baseline = asked.baseline or default_baseline(ranked)
    compared = _against(ranked if rest else group(shown), asked, items)
    sections = [
        *([_verdict(verdicts, rows)] if verdicts else []),
        *_experiments(shown, curves),
        *compared.sections,
        *_over_tasks(verdicts, asked),
        Section("tuned", "Default and tuned", tables=tuning_tables(told.tuning, every)),
        Section(
            "target", "Of the target", target_lines(told.targets, every), target_tables(told.targets, every)
        ),
        *_tasks(
            seen.by_task(groups),
            {v.task: v for v in verdicts},
            drawn,
            curves,
            items,
            seen.columns,
            baseline,
            rows,
        ),
        Section("matched", "At matched cost", tables=matched_tables(matched), detail=True),
        Section("sweeps", "Sweeps", figures=sweep_figures(groups) if rows is None else ()),
        Section("throughput", "Throughput", figures=throughput_figures(groups) if rows is None else ()),
        _what_was_run(shown, every, len(found) - len(current), rows),
        Section("data", "Data", data_lines(shown)),
        Section("findings", "What the numbers show", findings(groups, items)),
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
        verdicts=verdicts,
        against=compared.rows,
        curves=curves,
        items=items,
        unread=len(groups) - len(drawn),
    )


def _verdict(verdicts: Sequence[TaskVerdict], rows: int | None) -> Section:
    screen = Screen(verdicts, rows)
    return Section("verdict", screen.title(), screen.sentences(), [screen.table()])


def _over_tasks(verdicts: Sequence[TaskVerdict], asked: Comparison) -> list[Section]:
    over = over_tasks(verdicts, Screen(verdicts).order)
    seeds = seeds_table(verdicts) if asked.plan_seeds else None
    nothing = ["no two algorithms were compared over several seeds"] if asked.plan_seeds and not seeds else []
    return [
        Section("over_tasks", over.title if over else "", tables=[over] if over else []),
        Section("seeds", "How many seeds", nothing, [seeds] if seeds else []),
    ]


def _others(records: Sequence[Record]) -> list[Record]:
    """The records that no experiment of the article tells of."""
    if all(r.suite != ARTICLE for r in records):
        return list(records)
    from xpo_bench.report.experiments import others  # with all that draws: of the article's records alone

    return others(records)


def _experiments(records: Sequence[Record], curves: Curves) -> list[Section]:
    if all(r.suite != ARTICLE for r in records):
        return []
    from xpo_bench.report.experiments import EXPERIMENTS, of_experiments

    out = []
    for name, cells in of_experiments(records).items():
        e = EXPERIMENTS[name]
        data = e.data(cells, curves)
        figures = [ExperimentFigure(e.title, plot, data) for plot in e.figures.values()]
        out.append(Section("experiment", f"{name}: {e.title}", e.findings(data), e.shown(data), figures))
    return out


def _tasks(
    by_task: Mapping[str, Sequence[SeedGroup]],
    verdicts: Mapping[str, TaskVerdict],
    drawn: Sequence[SeedGroup],
    curves: Curves,
    items: ItemReader,
    columns: Sequence[str],
    baseline: str | None,
    most: int | None,
) -> list[Section]:
    kept, base = set(drawn), [baseline] if baseline else []
    return [
        Section(
            "task",
            clean(task),
            tables=task_tables(task, rows, items, columns, verdicts.get(task), most),
            # rows stand best first: the baseline speaks, and the best of them
            figures=task_figures(
                task, [g for g in rows if g in kept], curves, [*base, *(g.label for g in rows)]
            ),
            detail=True,
        )
        for task, rows in by_task.items()
    ]


@dataclass(frozen=True)
class _Compared:
    """Every row against the baseline, and the section that says so."""

    rows: Sequence[Against]
    sections: Sequence[Section]


def _against(groups: Sequence[SeedGroup], asked: Comparison, items: ItemReader) -> _Compared:
    named = asked.baseline or default_baseline(groups)
    if named is None or not groups:
        return _Compared((), ())
    rows = against(groups, named, items, asked.metric)
    title = f"Against {clean(label_of(groups, named))}"
    if rows:
        return _Compared(rows, [Section("against", title, tables=[versus_table(rows, named)])])
    label = label_of(groups, named)
    stands = not any(moved(g) for g in groups if g.label == label)
    why = f"{clean(label)} has not moved" if stands else "no other algorithm on a task of it has its metric"
    nothing = f"nothing to compare: {why}"
    return _Compared(rows, [Section("against", title, [nothing])] if asked.baseline else [])


def _what_was_run(shown: Sequence[Record], every: Sequence[Record], again: int, rows: int | None) -> Section:
    tables = [configurations(shown, rows), task_settings(shown, rows)] if shown else []
    left = f"{counted(again, 'record')} left out whose cells a later command ran again, from other sources"
    return Section("ran", "What was run", [*machines(every), *([left] if again else [])], tables, detail=True)
