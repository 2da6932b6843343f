"""`xpo-bench run`."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

import click

from xpo_bench.cli.base import guarded, main, print_json, say, terminated
from xpo_bench.cli.options import words
from xpo_bench.runner.importing import importing
from xpo_bench.runner.words import Execution, Output, Request, Search

RUN_EXAMPLES = """\b
Examples:
  xpo-bench run --algos dpo,ipo
  xpo-bench run --algos all --suite quick --seeds 3
  xpo-bench run --algos dpo,ipo --tasks bandit --set dpo.beta=0.05,0.1,0.5
  xpo-bench run --algos dpo,my_loss.py:MyLoss --tasks bandit
  xpo-bench run --algos dpo --data prefs.jsonl --model tabular --world world.json
  xpo-bench run --algos kto --tasks ukp --model path/to/model --steps 100
  xpo-bench run --suite full --executor ray --address auto
  xpo-bench run --algos dpo,ipo --tasks bandit --protocol tuned --trials 16
  xpo-bench run --tasks bandit --track csv,tensorboard
  xpo-bench run plan.toml
"""


@main.command(epilog=RUN_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@words(Request, "algos", "loss_over")
@words(Search)
@words(Request, "label_noise", "dtype")
@words(Execution)
@words(Request, "gpus_per_cell", "gpus_per_cell")
@words(Output)
@words(Request, "save_policies", "save_policies")
@click.option("--plan-seeds", is_flag=True, help="Also say how many seeds would separate the algorithms.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def run(
    file: Path | None,
    settings: tuple[str, ...],
    plan_seeds: bool,
    as_json: bool,
    quiet: bool,
    disable: tuple[str, ...],
    **given: Any,
) -> int:
    """Run algorithms on tasks and print the tables.

    Cells that are already in the run directory are not computed again: the same command resumes.
    FILE is a plan in TOML with the same words; flags override it.

    \b
    Exit status: 0 all cells ok, 1 some cell failed, 2 something in the command or the data is wrong,
    130 interrupted.
    """
    with importing(owner=True):
        importlib.import_module("xpo_bench.runner.run")
        from xpo_bench import api
        from xpo_bench.runner.progress import Reporter
        from xpo_bench.runner.settings import parse_set

    given = {name: value for name, value in given.items() if value is not None}
    if settings:
        given["set"] = parse_set(settings)
    signal.signal(signal.SIGTERM, terminated)
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is no result
        result = api.run(
            file=file, reporter=Reporter(quiet), disable=frozenset(disable), spread=True, **given
        )
    if as_json or not result.cells:
        for entry in result.unreachable:
            say(f"task {entry['task']} is unreachable: {entry['reason']}")
    if as_json:
        print_json(result.document(plan_seeds=plan_seeds))
    elif result.cells or result.targets:
        result.show(plan_seeds=plan_seeds)
        if not quiet:
            say(f"records in {result.out} (`xpo-bench show {result.out}` prints the tables again)")
    return 0 if result.ok else 1
