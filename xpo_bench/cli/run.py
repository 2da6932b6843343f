"""`xpo-bench run`."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

import click

from xpo_bench.cli.base import guarded, main, print_json, say
from xpo_bench.errors import Terminated

RUN_EXAMPLES = """\b
Examples:
  xpo-bench run --algos dpo,ipo
  xpo-bench run --algos all --suite quick --seeds 3
  xpo-bench run --algos dpo,ipo --tasks bandit --set dpo.beta=0.05,0.1,0.5
  xpo-bench run --algos dpo --data prefs.jsonl --model tabular --world world.json
  xpo-bench run --algos kto --tasks ukp --model path/to/model --steps 100
  xpo-bench run --suite full --executor ray --address auto
  xpo-bench run --algos dpo,ipo --tasks bandit --protocol tuned --trials 16
  xpo-bench run --tasks bandit --track csv,tensorboard
  xpo-bench run plan.toml
"""


def comma_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


BUDGET = "Budget (defaults come from the task)"


@main.command(epilog=RUN_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--algos", help="Algorithms, separated by commas, or all.")
@click.option("--tasks", help="Tasks, separated by commas.")
@click.option(
    "--suite",
    help="A built-in set of tasks: quick, exact or full; or article, six experiments with figures.  [default: quick]",
)
@click.option(
    "--data",
    metavar="FILE_OR_HUB_ID",
    help="Make a task of any preference set: .jsonl, .json, .csv, .tsv, .parquet, a name under XPO_BENCH_DATA, or a hub id.",
)
@click.option(
    "--world", metavar="FILE.json", help="With --data: reference probabilities and rewards per prompt."
)
@click.option(
    "--rows",
    type=int,
    metavar="N",
    help="Read only the first N rows of a data set, of each split if it has any.  [default: all]",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    help="Refuse a data set with bad rows, or skip and count them.  [default: error]",
)
@click.option(
    "--columns",
    metavar="NAME=COLUMN[,...]",
    help="With --data: what columns mean, such as chosen=response_a,rejected=response_b; known layouts need none.",
)
@click.option(
    "--rankings",
    type=click.Choice(["all", "best"]),
    help="With --data: make all pairs of a ranking, or its best answer against each other one.  [default: all]",
)
@click.option(
    "--truncate",
    type=click.Choice(["prompt", "completion", "drop"]),
    help="What is truncated in rows longer than the context; drop leaves them out.  [default: prompt]",
)
@click.option(
    "--model", metavar="tabular|linear[:RANK]|tiny|HUB_ID|PATH", help="The policy; by default the task's own."
)
@click.option(
    "--lora",
    metavar="r=R[,alpha=A]",
    help="Train adapters of rank R on a frozen language model (needs peft).",
)
@click.option(
    "--template-date",
    metavar="YYYY-MM-DD",
    help="The day that a chat template is told, where it writes today's date.  [default: 2024-07-26, so that keys do not change]",
)
@click.option(
    "--trust-remote-code", is_flag=True, default=None, help="Run code that the model's hub repository ships."
)
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
@click.option(
    "--sampling",
    type=click.Choice(["epochs", "replacement"]),
    help="Seeded permutations, or independent draws.",
)
@click.option(
    "--heldout",
    type=float,
    metavar="F",
    help="With --data: share of rows held out when there is no split column.",
)
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw", "rmsprop"]), help="Update rule.")
@click.option(
    "--lr",
    type=float,
    help="Learning rate of all algorithms; by default each has its own from the task's table.",
)
@click.option(
    "--loss-over",
    type=click.Choice(["sequence", "token"]),
    help="A completion, or each of its tokens, is a row of the loss.",
)
@click.option(
    "--target-kl",
    type=float,
    metavar="K",
    help="Search the value of each regulariser at which the final KL is K nats, and run it.",
)
@click.option(
    "--protocol",
    metavar="default|tuned",
    help="tuned: also run each algorithm at the best of its trials, chosen on a validation split.  [default: default]",
)
@click.option(
    "--trials",
    type=int,
    metavar="N",
    help="With --protocol tuned: configurations per algorithm.  [default: 16]",
)
@click.option(
    "--select",
    metavar="METRIC",
    help="With --protocol tuned: what trials are chosen by.  [default: heldout_reward_accuracy]",
)
@click.option(
    "--label-noise",
    type=float,
    metavar="P",
    help="Probability that a training row is flipped, once per seed.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float64"]), help="Dtype of the policy.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where cells run: on this machine, or as tasks of a Ray cluster (needs the extra ray).",
)
@click.option(
    "--address",
    metavar="auto|local|HOST:PORT",
    help="With --executor ray: the cluster that this machine is part of, one of its own for this run, or another.  "
    "[default: auto]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes side by side, each with its own GPU or share of the cores; 1 runs cells in this process.  "
    "[default: 1; with --executor ray all that the cluster has room for]",
)
@click.option(
    "--cell-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End a cell after S seconds, as a timeout.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Let torch take deterministic algorithms alone: the same bits on the same GPU, slower.",
)
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
@click.option(
    "--track",
    callback=comma_names,
    metavar="NAME[,NAME]",
    help="Follow every cell live in RUN/tracking: csv, tensorboard, wandb (offline), or a tracker of a plugin.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Run the I-th of N parts of the plan; `xpo-bench merge` joins their directories.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for another process that writes the run directory, in place of an error.",
)
@click.option("--fresh", is_flag=True, help="Compute cells again that are already there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def run(
    file: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    disable: tuple[str, ...],
    **words: Any,
) -> int:
    """Run algorithms on tasks and print the tables.

    Cells that are already in the run directory are not computed again: the same command resumes.
    FILE is a plan in TOML with the same words; flags override it.

    \b
    Exit status: 0 all cells ok, 1 some cell failed, 2 something in the command or the data is wrong,
    130 interrupted.
    """
    from xpo_bench import api
    from xpo_bench.runner.progress import Reporter
    from xpo_bench.runner.request import parse_seeds
    from xpo_bench.runner.settings import parse_set

    words = {k: v for k, v in words.items() if v is not None}
    if settings:
        words["set"] = parse_set(settings)
    if "seeds" in words:
        words["seeds"] = list(parse_seeds(words["seeds"]))
    signal.signal(signal.SIGTERM, _terminated)
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is no result
        result = api.run(file=file, reporter=Reporter(quiet), disable=frozenset(disable), **words)
    if as_json or not result.cells:
        for entry in result.unreachable:
            say(f"task {entry['task']} is unreachable: {entry['reason']}")
    if as_json:
        print_json(result.document())
    elif result.cells or result.targets:
        result.show()
        if not quiet:
            say(f"records in {result.out} (`xpo-bench show {result.out}` prints the tables again)")
    return 0 if result.ok else 1


def _terminated(*_: object) -> None:
    raise Terminated
