"""`xpo-bench report --json`: what the page says, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench.report.experiments.base import curve_reader, others
from xpo_bench.report.findings import findings
from xpo_bench.report.render.terminal import left_out, problems, without_search
from xpo_bench.report.runs import Record, group
from xpo_bench.report.summary import summarise
from xpo_bench.report.tables.columns import unlearns
from xpo_bench.report.tables.data_lines import data_lines
from xpo_bench.report.tables.equal_cost import read_outs
from xpo_bench.report.tables.scoreboard import board_document
from xpo_bench.runner.store import SCHEMA


def report_document(root: Path, records: Sequence[Record], document: Mapping[str, Any]) -> dict[str, Any]:
    """Scoreboard with intervals, findings, what is not ok or was not run, read-outs at equal cost, and the
    summary of all cells.

    Args:
        root: the run directory. records, document: its records and its run.json, or an empty dictionary.
    """
    shown = without_search(records)
    rest = others(shown)
    groups = group(rest)
    missing = [f"{u.get('task')}: {u.get('reason')}" for u in document.get("unreachable") or []]
    return {
        "schema": SCHEMA,
        "run": root.resolve().name,
        "scoreboard": board_document([g for g in groups if not unlearns(g)]),
        "findings": findings(groups),
        "data": data_lines(shown),
        "not_ok": problems(rest),
        "not_run": missing + left_out(document.get("skipped") or []),
        "readouts": [out.document() for out in read_outs(groups, curve_reader(root))],
        "summary": summarise(shown),
    }
