"""`xpo-bench claims`."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpo_bench.cli.base import guarded, main, print_json, say, terminated, write_file
from xpo_bench.errors import UsageError
from xpo_bench.runner.importing import importing

if TYPE_CHECKING:
    from xpo_bench.claims.document import Ledger

CLAIMS_EXAMPLES = """\b
Examples:
  xpo-bench claims
  xpo-bench claims ipo-stops misspecified-dpo
  xpo-bench claims my_claim.toml
  xpo-bench claims --md claims.md --json > claims.json
  xpo-bench claims --against results/claims.json
"""
FLIPPED = 3


@main.command(epilog=CLAIMS_EXAMPLES)
@click.argument("names", metavar="[NAME|FILE.toml]...", nargs=-1)
@click.option("--md", metavar="F", help="Write the ledger as Markdown; - is stdout.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--refresh", is_flag=True, help="Compute cells again that are already there.")
@click.option(
    "--against",
    metavar="F",
    type=click.Path(path_type=Path),
    help="A ledger that --json has printed: exit with status 3 where a verdict differs from it.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("results/runs/claims"),
    show_default=True,
    help="Where the run directories of the claims are.",
)
@click.option("--device", default="auto", show_default=True, help="The device of the policies.")
@click.option("--workers", type=click.IntRange(1), help="Processes that run cells side by side.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--disable", multiple=True, metavar="NAME", help="Leave a plugin out.")
@guarded
def claims(
    names: tuple[str, ...],
    md: str | None,
    as_json: bool,
    refresh: bool,
    against: Path | None,
    out: Path,
    device: str,
    workers: int | None,
    quiet: bool,
    disable: tuple[str, ...],
) -> int:
    """Test what papers claim, all claims or those named, and print the ledger of verdicts.

    A claim is a file of cells and declared tests (docs/claims.md). Its cells are run like any others:
    those that are already there are not computed again.

    \b
    Exit status: 0 all claims were tested, 1 some cell failed, 2 something in the command or a claim is
    wrong, 3 a verdict differs from --against, 130 interrupted.
    """
    if as_json and md == "-":
        raise UsageError("--json and --md - both write to stdout; give --md a file")
    if md and md != "-" and (Path(md).is_dir() or not Path(md).absolute().parent.is_dir()):
        raise UsageError(f"--md {md}: cannot be written; name a file in a directory that exists")
    from xpo_bench.claims import document, pages

    before = document.read(against) if against else None
    with importing(owner=True):
        importlib.import_module("xpo_bench.runner.run")  # what trains, and torch with it
        from rich.console import Console

        from xpo_bench import plugins
        from xpo_bench.claims.ledger import find, judge_all
        from xpo_bench.runner.progress import Reporter
    found = find(names, plugins.load(frozenset(disable)))
    signal.signal(signal.SIGTERM, terminated)
    alone = as_json or md == "-"
    screen = Console(file=sys.stderr if alone else sys.stdout, quiet=alone and quiet)
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is no result
        ledger = judge_all(
            found,
            out,
            Reporter(quiet),
            lambda entry: pages.print_claim(screen, entry),
            fresh=refresh,
            device=device,
            workers=workers,
            disable=frozenset(disable),
        )
    if as_json:
        print_json(ledger)
    elif md == "-":
        click.echo(pages.markdown(ledger), nl=False)
    elif len(found) > 1:
        pages.print_ledger(screen, ledger)
    if md and md != "-":
        _write(Path(md), pages.markdown(ledger))
    return _status(ledger, before)


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode(), "--md")
    say(f"wrote {path}")


def _status(ledger: Ledger, before: Ledger | None) -> int:
    from xpo_bench.claims.document import flips

    failed = [(c["id"], t["reason"]) for c in ledger["claims"] for t in c["tests"] if t["reason"]]
    for name, reason in failed:
        say(f"claim {name}: {reason}")
    flipped = flips(before, ledger) if before else []
    for line in flipped:
        say(f"verdict changed: {line}")
    return FLIPPED if flipped else 1 if failed else 0
