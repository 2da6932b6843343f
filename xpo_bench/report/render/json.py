"""`xpo-bench report --json`: what a report says, as data."""

from __future__ import annotations

from typing import Any

from xpo_bench.report.content import Report, Section
from xpo_bench.report.summary import summarise
from xpo_bench.report.table import Table
from xpo_bench.report.tables.versus import documents
from xpo_bench.report.verdicts.documents import board_document, verdict_documents
from xpo_bench.report.verdicts.seeds import seeds_documents
from xpo_bench.runner.record import SCHEMA


def report_document(report: Report) -> dict[str, Any]:
    """Every section with its tables, sentences and figures; the scoreboard and the metrics at matched cost as
    numbers, and the summary of all cells.
    """
    return {
        "schema": SCHEMA,
        "run": report.name,
        "counts": report.counts,
        "verdicts": verdict_documents(report.verdicts),
        "against": documents(report.against),
        "scoreboard": board_document(report.groups, report.verdicts, report.items),
        "findings": report.sentences("findings"),
        "data": report.sentences("data"),
        "not_ok": report.sentences("not_ok"),
        "not_run": report.sentences("not_run"),
        "readouts": [m.document() for m in report.matched],
        "tuning": list(report.document.tuning),
        "targets": list(report.document.targets),
        "commands": [list(argv) for argv in report.document.commands],
        "sections": [_section(s) for s in report.sections],
        "tables": [_table(s, t) for s in report.sections for t in s.tables],
        "summary": summarise(report.shown),
    }


def show_document(run: str, report: Report, plan_seeds: bool = False) -> dict[str, Any]:
    """The records as they are, with their summary, verdicts, and what else of them takes curves or a test."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run,
        "cells": [r.raw for r in report.records],
        "summary": summarise(report.records),
        "readouts": [m.document() for m in report.matched],
        **verdicts_of(report, plan_seeds),
    }
    searched = {"tuning": list(report.document.tuning), "targets": list(report.document.targets)}
    return document | {name: found for name, found in searched.items() if found}


def verdicts_of(report: Report, plan_seeds: bool = False) -> dict[str, Any]:
    """What is concluded, and where it is asked for how many seeds would separate the algorithms."""
    found: dict[str, Any] = {
        "verdicts": verdict_documents(report.verdicts),
        "against": documents(report.against),
    }
    return found | ({"seeds_needed": seeds_documents(report.verdicts)} if plan_seeds else {})


def _section(section: Section) -> dict[str, Any]:
    """A section; its tables stand under `tables` of the document, by title."""
    return {
        "name": section.name,
        "title": section.title,
        "sentences": list(section.sentences),
        "tables": [table.title for table in section.tables],
        "figures": [figure.caption for figure in section.figures if not figure.empty],
    }


def _table(section: Section, table: Table) -> dict[str, Any]:
    """A table: its cells as they are shown, and which of them are best."""
    return {
        "section": section.title,
        "title": table.title,
        "note": table.note,
        "columns": [
            {
                "header": column.name,
                "better": column.better,
                "cells": list(column.cells),
                "best": list(column.best) or [False] * len(column.cells),
            }
            for column in table.columns
        ],
    }
