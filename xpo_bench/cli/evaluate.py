"""`xpo-bench evaluate`: trained models, by the suite's metrics."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from typing import Any

import click

from xpo_bench.cli.base import guarded, main, print_json, say, terminated
from xpo_bench.cli.options import words
from xpo_bench.evaluating.words import Words
from xpo_bench.runner.importing import importing

EXAMPLES = """\b
Examples:
  xpo-bench evaluate out/dpo --reference path/to/model --data prefs.jsonl
  xpo-bench evaluate dpo=out/dpo ipo=out/ipo --reference OWNER/MODEL --data prefs.parquet --beta 0.1
  xpo-bench evaluate dpo=out/dpo/checkpoint-200 --reference OWNER/MODEL --data prefs.jsonl \\
      --judge my_rewards:helpful --base-data other.jsonl --out results/dpo
  xpo-bench show results/dpo
"""


@main.command(epilog=EXAMPLES)
@click.argument("checkpoints", nargs=-1, metavar="[NAME=]CHECKPOINT...")
@words(Words, "reference", "data")
@click.option(
    "--base-data",
    multiple=True,
    metavar="FILE_OR_HUB_ID",
    help="Also measure what was forgotten of the chosen texts of this set; may be given several times.",
)
@words(Words, "judge", "fresh")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@guarded
def evaluate(as_json: bool, quiet: bool, **given: Any) -> int:
    """Measure models that were trained elsewhere, as the suite measures its own.

    CHECKPOINT is a directory of a model, of a LoRA adapter or of a training run with checkpoint-N in it, or a
    hub id; NAME is its row in the tables. What was measured is kept: the same command resumes, and measures
    only checkpoints that are new.

    \b
    Exit status: 0 all measured, 1 some checkpoint failed or the disk is full, 2 something in the command,
    a checkpoint or the data is wrong, 130 interrupted.
    """
    with importing(owner=True):
        importlib.import_module("xpo_bench.evaluating.run")
        from xpo_bench import api

    signal.signal(signal.SIGTERM, terminated)
    with contextlib.redirect_stdout(sys.stderr):  # what judges print is no result
        result = api.evaluate(**given, note=None if quiet else say)
    if as_json:
        print_json(result.document())
    else:
        from xpo_bench.report.render.lost import print_lost

        result.show()
        print_lost(result.cells)
        if not quiet:
            say(f"records in {result.out} (`xpo-bench show {result.out}` prints the tables again)")
    return 0 if result.ok else 1
