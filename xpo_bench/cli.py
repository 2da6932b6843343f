"""The command line. Heavy modules are imported inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from xpo_bench import __version__
from xpo_bench.errors import Terminated, UnreachableError, UsageError, unknown

RUN_EXAMPLES = """\b
Examples:
  xpo-bench run --algos dpo,ipo
  xpo-bench run --algos all --suite quick --seeds 3
  xpo-bench run --algos dpo,ipo --tasks bandit --set dpo.beta=0.05,0.1,0.5
  xpo-bench run --algos dpo --data prefs.jsonl --model tabular --world world.json
  xpo-bench run --algos kto --tasks ukp --model path/to/model --steps 100
  xpo-bench run plan.toml
"""


class Main(click.Group):
    """A command group that turns every mendable error into one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.Abort:
            _say("interrupted")
            code = 130
        except click.UsageError as error:
            where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _say(f"{error.format_message()}{where}")
            code = 2
        except click.ClickException as error:
            _say(error.format_message())
            code = 2
        except click.exceptions.Exit as error:
            code = error.exit_code
        except BrokenPipeError:
            # the reader of stdout has gone; nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    clean = "".join(c if c.isprintable() else " " for c in str(message))
    click.echo(f"xpo-bench: {clean}", err=True)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xpo-bench")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Benchmark preference-optimization algorithms: losses proven against their papers, worlds whose
    optimum is known, exact KL, collapse and displacement, and tables that say what they show.

    \b
    Start with:
      xpo-bench run --algos dpo,ipo
      xpo-bench list algos
    """
    context.obj = {"debug": debug}


def guarded(function: Any) -> Any:
    """Exit statuses of the contract: 2 for what a user can mend, 130 for Ctrl-C."""
    import functools

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> int:
        debug = click.get_current_context().find_root().obj["debug"]
        try:
            result = function(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.exceptions.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            code, message = _verdict(error)
            if debug:
                import traceback

                traceback.print_exc()
            _say(message)
            return code
        return result if isinstance(result, int) else 0

    return wrapper


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit status and message of what stopped a command."""
    if isinstance(error, UsageError):
        return 1 if isinstance(error, UnreachableError) else 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 143 if isinstance(error, Terminated) else 130, "interrupted; finished cells are kept, the same command resumes"
    return 1, f"{type(error).__name__}: {error} (--debug before the command shows the traceback)"


def comma_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


BUDGET = "Budget (defaults come from the task)"


@main.command(epilog=RUN_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--algos", help="Algorithms, separated by commas, or all.")
@click.option("--tasks", help="Tasks, separated by commas.")
@click.option(
    "--suite", help="A built-in set of tasks: quick, exact or full; or article, six experiments with figures.  [default: quick]"
)
@click.option(
    "--data",
    metavar="FILE_OR_HUB_ID",
    help="Make a task of any preference set: .jsonl, .json, .csv, .parquet, a name under XPO_BENCH_DATA, or a hub id.",
)
@click.option("--world", metavar="FILE.json", help="With --data: reference probabilities and rewards per prompt.")
@click.option(
    "--rows", type=int, metavar="N", help="Read only the first N rows of a data set, of each split if it has any.  [default: all]"
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    help="Refuse a data set with bad rows, or skip and count them.  [default: error]",
)
@click.option(
    "--truncate",
    type=click.Choice(["prompt", "completion", "drop"]),
    help="What gives way in rows longer than the context.  [default: prompt]",
)
@click.option("--model", metavar="tabular|linear[:RANK]|tiny|HUB_ID|PATH", help="The policy; by default the task's own.")
@click.option("--lora", metavar="r=R[,alpha=A]", help="Train adapters of rank R on a frozen language model (needs peft).")
@click.option("--trust-remote-code", is_flag=True, default=None, help="Run code that the model's hub repository ships.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A.FIELD=V1,V2",
    help="A hyperparameter (dpo.beta=0.1), a training setting (dpo.train.lr=1e-3) or a task setting (task.steps=200); "
    "commas sweep, several --set form a grid.",
)
@click.option("--seeds", metavar="N|LIST", help="3 is seeds 0, 1, 2; 0,7 or 42, names seeds.  [default: 3]")
@click.option("--steps", type=int, help="Optimizer steps.")
@click.option("--batch-size", type=int, help="Data rows per step; a pair counts once.")
@click.option("--sampling", type=click.Choice(["epochs", "replacement"]), help="Seeded permutations, or independent draws.")
@click.option("--heldout", type=float, metavar="F", help="With --data: share of rows held out when there is no split column.")
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw", "rmsprop"]), help="Update rule.")
@click.option("--lr", type=float, help="Learning rate of all algorithms; by default each has its own from the task's table.")
@click.option(
    "--loss-over", type=click.Choice(["sequence", "token"]), help="A completion, or each of its tokens, is a row of the loss."
)
@click.option(
    "--target-kl",
    type=float,
    metavar="K",
    help="Search the value of each regulariser at which the final KL is K nats, and run it.",
)
@click.option("--label-noise", type=float, metavar="P", help="Probability that a training row is flipped, once per seed.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float64"]), help="Dtype of the policy.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--executor", type=click.Choice(["local"]), default="local", show_default=True, help="Where cells run: in this process."
)
@click.option("--workers", type=click.IntRange(1, 1), default=1, show_default=True, help="Processes; 1 runs in this one.")
@click.option(
    "--gpus-per-cell",
    type=int,
    metavar="N",
    help="Train a language model by N processes, each with the whole model on a device of its own (no sharding).  [default: 1]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run directory; an existing one is extended.  [default: results/runs/ and the plan's hash]",
)
@click.option("--fresh", is_flag=True, help="Compute cells again that are already there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def run(file: Path | None, settings: tuple[str, ...], as_json: bool, quiet: bool, disable: tuple[str, ...], **words: Any) -> int:
    """Run algorithms on tasks and print the tables.

    Cells that are already in the run directory are not computed again: the same command resumes.
    FILE is a plan in TOML with the same words; flags override it.

    \b
    Exit status: 0 all cells ok, 1 some cell failed, 2 something in the command or the data is wrong,
    130 interrupted.
    """
    from xpo_bench.runner import api
    from xpo_bench.runner.config import parse_set
    from xpo_bench.runner.progress import Reporter
    from xpo_bench.runner.request import parse_seeds

    del words["executor"], words["workers"]  # one executor and one process so far
    words = {k: v for k, v in words.items() if v is not None}
    if settings:
        words["set"] = parse_set(settings)
    if "seeds" in words:
        words["seeds"] = list(parse_seeds(words["seeds"]))
    signal.signal(signal.SIGTERM, _terminated)
    result = api.run(file=file, reporter=Reporter(quiet), disable=frozenset(disable), **words)
    if as_json or not result.cells:
        for entry in result.unreachable:
            _say(f"task {entry['task']} is unreachable: {entry['reason']}")
    if as_json:
        _print_json(result.document())
    elif result.cells or result.targets:
        result.show()
        if not quiet:
            _say(f"records in {result.out} (`xpo-bench show {result.out}` prints the tables again)")
    return 0 if result.ok else 1


def _terminated(*_: object) -> None:
    raise Terminated


def _print_json(document: Any) -> None:
    from xpo_bench.runner.keys import canonical
    from xpo_bench.runner.store import finite

    click.echo(canonical(finite(document)))


LISTS = ("algos", "tasks", "metrics", "plugins")


@main.command("list", epilog="\b\nExamples:\n  xpo-bench list algos\n  xpo-bench list plugins --json\n")
@click.argument("what", metavar="algos|tasks|metrics|plugins")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def list_(what: str, as_json: bool, disable: tuple[str, ...]) -> int:
    """List what is installed: algorithms, tasks, metrics or plugins, and where each comes from."""
    from xpo_bench.runner import listing

    if what not in LISTS:
        raise UsageError(unknown("list", what, LISTS))
    rows = listing.rows(what, frozenset(disable))
    if as_json:
        _print_json(rows)
    else:
        from rich.console import Console

        from xpo_bench.report.tables import print_list

        print_list(Console(), what, rows)
    return 0


@main.command(epilog="\b\nExample:\n  xpo-bench show results/runs/3f2a9c0d1b7e\n")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@guarded
def show(run_dir: Path, as_json: bool) -> int:
    """Print the tables of a run directory again, from its records alone."""
    from xpo_bench.report.stats import summarise
    from xpo_bench.runner.store import SCHEMA, Store

    store = Store.existing(run_dir)
    records = store.records()
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if as_json:
        _print_json({"schema": SCHEMA, "run": str(run_dir), "cells": records, "summary": summarise(records)})
    else:
        from rich.console import Console

        from xpo_bench.report.experiments import print_experiments
        from xpo_bench.report.tables import print_run

        console = Console()
        print_run(console, print_experiments(console, records, run_dir), skipped=store.read_run().get("skipped", []))
    return 0


REPORT_EXAMPLES = """\b
Examples:
  xpo-bench report results/runs/3f2a9c0d1b7e
  xpo-bench report results/runs/3f2a9c0d1b7e --html report.html --md report.md
  xpo-bench report results/runs/3f2a9c0d1b7e --md -
"""


@main.command(epilog=REPORT_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--html", metavar="F", help="Write a page: one file, offline, light and dark.  [default: RUN/report.html, without --md]"
)
@click.option("--md", metavar="F", help="Write Markdown for a pull request; - is stdout.")
@guarded
def report(run_dir: Path, html: str | None, md: str | None) -> int:
    """Write a run's report: tables, findings, curves, and the command of every cell."""
    from xpo_bench.runner.store import Store, write_atomic

    store = Store.existing(run_dir)
    records = store.records()
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if html is None and md is None:
        html = str(run_dir / "report.html")
    for option, name in (("--html", html), ("--md", md)):
        if name is not None and name != "-" and (not name or Path(name).is_dir() or not Path(name).absolute().parent.is_dir()):
            raise UsageError(f"{option} {name}: cannot be written; name a file in a directory that exists")
    if html == "-":
        raise UsageError("--html -: a page goes to a file; only --md - writes to stdout")
    document = store.read_run()
    written: dict[str, str] = {}
    if html is not None:
        from xpo_bench.report.page import page

        written[html] = page(run_dir, records, document)
    if md is not None:
        from xpo_bench.report.markdown import markdown

        text = markdown(run_dir, records, document)
        if md == "-":
            click.echo(text, nl=False)
        else:
            written[md] = text
    for name, text in written.items():
        try:
            write_atomic(Path(name), text.encode())
        except OSError as error:
            raise UsageError(f"{name}: cannot be written ({error.strerror})") from None
        _say(f"wrote {name} ({len(text.encode()) / 1e6:.2f} MB)")
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
    counts: dict[str, int] = {}
    for key in planned:
        state = records[key]["status"] if key in records else "missing"
        counts[state] = counts.get(state, 0) + 1
    if as_json:
        _print_json(
            {"run": str(run_dir), "planned": len(planned), "finished": sum(k in records for k in planned), "status": counts}
        )
    else:
        from rich.console import Console

        from xpo_bench.report.tables import print_status

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
        _print_json(findings)
    else:
        from rich.console import Console

        from xpo_bench.report.tables import print_doctor

        print_doctor(Console(), findings)
    return 0 if all(finding["status"] != "wrong" for finding in findings) else 1
