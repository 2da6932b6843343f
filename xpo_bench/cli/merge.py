"""`xpo-bench merge`."""

from __future__ import annotations

from pathlib import Path

import click

from xpo_bench.cli.base import guarded, main, say
from xpo_bench.errors import UsageError

EXAMPLES = """\b
Examples:
  xpo-bench run --suite full --shard 1/2 --out a      # on one machine
  xpo-bench run --suite full --shard 2/2 --out b      # on another
  xpo-bench merge a b -o all
  xpo-bench show all
"""


@main.command(epilog=EXAMPLES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Run directory to write; it may hold cells already.",
)
@click.option("--wait", is_flag=True, help="Wait for another process that writes DIR, in place of an error.")
@guarded
def merge(runs: tuple[Path, ...], out: Path, wait: bool) -> int:
    """Join run directories into one with all their cells; contradicting cells are refused."""
    from xpo_bench.runner.lock import occupied
    from xpo_bench.runner.merge import merge as join
    from xpo_bench.runner.store import Store

    sources = [Store.existing(run) for run in runs]
    if any(run.resolve() == out.resolve() for run in runs):
        raise UsageError(f"--out {out}: is one of the runs; name another directory")
    target = Store(out)
    target.prepare()
    with occupied(out, wait, say):
        cells, left_out = join(sources, target)
    for line in left_out:
        say(f"left out: {line}")
    say(f"{cells} cells in {out} (`xpo-bench show {out}` prints the tables)")
    return 0
