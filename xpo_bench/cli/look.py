"""The commands that look: `list`, `show`, `status` and `doctor`."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from xpo_bench.cli.base import comma_names, guarded, main, print_json, tell_damaged
from xpo_bench.errors import UsageError, unknown

LISTS = ("algos", "tasks", "metrics", "trackers", "claims", "plugins")


@main.command("list", epilog="\b\nExamples:\n  xpo-bench list algos\n  xpo-bench list plugins --json\n")
@click.argument("what", metavar="algos|tasks|metrics|trackers|claims|plugins")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def list_(what: str, as_json: bool, disable: tuple[str, ...]) -> int:
    """List what is installed: algorithms, tasks, metrics, trackers, claims or plugins, and where each is
    from.
    """
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
  xpo-bench show results/runs/3f2a9c0d1b7e --baseline ipo --metric attained_3
  xpo-bench show results/runs/3f2a9c0d1b7e --algos dpo,ipo --tasks bandit --columns kl,gold_reward --sort kl
  xpo-bench show results/runs/3f2a9c0d1b7e --plan-seeds
"""


@main.command(epilog=SHOW_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    metavar="ALGO",
    help="Test every other algorithm against this one.  [default: dpo, or the first]",
)
@click.option("--metric", metavar="NAME", help="By what.  [default: the headline of each task]")
@click.option(
    "--algos", metavar="A,B", callback=comma_names, help="These algorithms alone; patterns such as *po."
)
@click.option("--tasks", metavar="A,B", callback=comma_names, help="These tasks alone.")
@click.option(
    "--columns", metavar="A,B", callback=comma_names, help="These metrics alone in the tables of tasks."
)
@click.option(
    "--sort", metavar="NAME", help="Rows by this metric, or by name.  [default: by the verdicts, best first]"
)
@click.option("--plan-seeds", is_flag=True, help="Say how many seeds would separate the algorithms.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def show(
    run_dir: Path,
    baseline: str | None,
    metric: str | None,
    algos: tuple[str, ...] | None,
    tasks: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    sort: str | None,
    plan_seeds: bool,
    as_json: bool,
) -> int:
    """Print the verdicts, tables, findings and curves of a run directory again, from its records alone."""
    from xpo_bench.metrics.registry import learn_from
    from xpo_bench.runner.store import Store

    store = Store.existing(run_dir)
    records = store.records()
    learn_from(records)
    tell_damaged(store)
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    from xpo_bench.report import table
    from xpo_bench.report.content import Comparison, assemble
    from xpo_bench.report.filters import View

    comparison = Comparison(baseline, metric, plan_seeds)
    view = View(algos or (), tasks or (), columns or (), sort)
    # the records stay until the end, and a collector would go through all of them again and again
    gc.disable()
    report = assemble(
        run_dir,
        records,
        store.read_run(),
        comparison=comparison,
        view=view,
        rows=None if as_json else table.ROWS,
    )
    if as_json:
        from xpo_bench.report.render.json import show_document

        print_json(show_document(str(run_dir), report, plan_seeds))
        return 0
    from rich.console import Console

    from xpo_bench.report.render.terminal import print_report

    print_report(Console(), report)
    return 0


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


@main.command(epilog="\b\nExamples:\n  xpo-bench doctor\n  xpo-bench doctor --model path/to/model\n")
@click.option("--model", metavar="M", help="Also a language model: what it is, and what --lora adapts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def doctor(model: str | None, as_json: bool) -> int:
    """Say what this machine can do: devices, versions, data, and plugins that cannot be used."""
    from xpo_bench.runner import doctor as examination

    findings = examination.examine(model)
    if as_json:
        print_json(findings)
    else:
        from rich.console import Console

        from xpo_bench.report.tables.listing import print_doctor

        print_doctor(Console(), findings)
    return 0 if all(finding["status"] != "wrong" for finding in findings) else 1
