"""`xpo-bench export`."""

from __future__ import annotations

from pathlib import Path

import click

from xpo_bench.cli.base import guarded, main, say, tell_damaged
from xpo_bench.errors import UsageError

EXAMPLES = """\b
Examples:
  xpo-bench export results/runs/3f2a9c0d1b7e --to published
  hf upload OWNER/NAME published --repo-type dataset          # publish it, with an account
"""


@main.command(epilog=EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to; created where it is not there.",
)
@guarded
def export(run_dir: Path, to: Path) -> int:
    """Write a run as a data set to publish: a row per cell, per point of a curve and per item, and a card."""
    from xpo_bench.report.curves import curve_reader
    from xpo_bench.report.render.dataset import export as write
    from xpo_bench.runner.store import Store

    store = Store.existing(run_dir)
    records = store.records()
    tell_damaged(store)
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if to.is_file() or to.resolve() == run_dir.resolve():
        raise UsageError(f"--to {to}: want a directory of its own")
    for path in write(to, run_dir.resolve().name, records, curve_reader(run_dir), run_dir):
        say(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0
