"""The commands that look: `list`, `show`, `status` and `doctor`."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpo_bench.cli.base import guarded, main, print_json, tell_damaged
from xpo_bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from xpo_bench.report.records import Raw

LISTS = ("algos", "tasks", "metrics", "trackers", "plugins")


@main.command("list", epilog="\b\nExamples:\n  xpo-bench list algos\n  xpo-bench list plugins --json\n")
@click.argument("what", metavar="algos|tasks|metrics|trackers|plugins")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def list_(what: str, as_json: bool, disable: tuple[str, ...]) -> int:
    """List what is installed: algorithms, tasks, metrics, trackers or plugins, and where each comes from."""
    from xpo_bench.runner import listing

    if what not in LISTS:
        raise UsageError(unknown("list", what, LISTS))
    rows = listing.rows(what, frozenset(disable))
    if as_json:
        print_json(rows)
    else:
        from rich.console import Console

        from xpo_bench.report.tables.listing import print_list

        print_list(Console(), what, rows)
    return 0


SHOW_EXAMPLES = """\b
Examples:
  xpo-bench show results/runs/3f2a9c0d1b7e
  xpo-bench show results/runs/3f2a9c0d1b7e --baseline dpo --metric frontier_gap
"""


@main.command(epilog=SHOW_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--baseline", metavar="ALGO", help="Test every other algorithm against this one.")
@click.option(
    "--metric", metavar="NAME", help="With --baseline: by what.  [default: the headline of each task]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def show(run_dir: Path, baseline: str | None, metric: str | None, as_json: bool) -> int:
    """Print the tables, findings and curves of a run directory again, from its records alone."""
    from xpo_bench.metrics.registry import learn_from
    from xpo_bench.runner.store import Store

    store = Store.existing(run_dir)
    records = store.records()
    learn_from(records)
    tell_damaged(store)
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if metric is not None and baseline is None:
        raise UsageError("--metric: goes with --baseline, it says by what algorithms are tested against it")
    from xpo_bench.report import table
    from xpo_bench.report.content import Comparison, assemble

    if as_json:
        print_json(_show_document(run_dir, records, store.read_run(), baseline, metric))
        return 0
    from rich.console import Console

    from xpo_bench.report.render.terminal import print_report

    # the records stay until the end, and a collector would go through all of them again and again
    gc.disable()
    comparison = Comparison(baseline, metric) if baseline is not None else None
    report = assemble(run_dir, records, store.read_run(), comparison=comparison, rows=table.ROWS)
    print_report(Console(), report)
    return 0


def _show_document(
    run_dir: Path, raws: Sequence[Raw], run: Raw, baseline: str | None, metric: str | None
) -> dict[str, object]:
    """The records as they are, with their summary and what else of them takes the curves or a test."""
    from xpo_bench.report.curves import curve_reader
    from xpo_bench.report.records import records_of
    from xpo_bench.report.runs import group, without_search
    from xpo_bench.report.summary import summarise
    from xpo_bench.report.tables.equal_cost import matched_metrics
    from xpo_bench.report.tables.versus import against, documents
    from xpo_bench.runner.record import SCHEMA

    records = records_of(raws)
    matched = matched_metrics(group(without_search(records)), curve_reader(run_dir))
    document: dict[str, object] = {
        "schema": SCHEMA,
        "run": str(run_dir),
        "cells": raws,
        "summary": summarise(records),
        "readouts": [m.document() for m in matched],
    }
    document |= {name: run[name] for name in ("tuning", "targets") if run.get(name)}
    if baseline is not None:
        document["against"] = documents(against(group(records), baseline, metric))
    return document


@main.command(epilog="\b\nExample:\n  xpo-bench status results/runs/3f2a9c0d1b7e\n")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def status(run_dir: Path, as_json: bool) -> int:
    """Say how many of the planned cells are finished, by status."""
    from xpo_bench.runner.store import Store

    store = Store.existing(run_dir)
    planned = [entry["key"] for entry in store.read_run().get("plan", [])]
    records = {r["key"]: r for r in store.records()}
    tell_damaged(store)
    counts: dict[str, int] = {}
    for key in planned:
        state = records[key]["status"] if key in records else "missing"
        counts[state] = counts.get(state, 0) + 1
    if as_json:
        print_json(
            {
                "run": str(run_dir),
                "planned": len(planned),
                "finished": sum(k in records for k in planned),
                "status": counts,
            }
        )
    else:
        from rich.console import Console

        from xpo_bench.report.tables.listing import print_status

        print_status(Console(), len(planned), counts)
    return 0


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def doctor(as_json: bool) -> int:
    """Say what this machine can do: devices, versions, data, and plugins that cannot be used."""
    from xpo_bench.runner import doctor as examination

    findings = examination.examine()
    if as_json:
        print_json(findings)
    else:
        from rich.console import Console

        from xpo_bench.report.tables.listing import print_doctor

        print_doctor(Console(), findings)
    return 0 if all(finding["status"] != "wrong" for finding in findings) else 1
