"""`xpo-bench compare` and `xpo-bench baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xpo_bench.cli.base import comma_names, guarded, main, print_json, say, write_file
from xpo_bench.errors import UsageError

if TYPE_CHECKING:
    from xpo_bench.compare.document import Document
    from xpo_bench.compare.matching import Match

COMPARE_EXAMPLES = """\b
Examples:
  xpo-bench compare results/runs/3f2a9c0d1b7e results/runs/90ab12cd34ef
  xpo-bench compare results/baselines/quick-cpu.json RUN --md compare.md
  xpo-bench compare BASE NEW --match algorithm
  xpo-bench compare BASE NEW --margin kl=0.1
  xpo-bench compare --ab .venv-old .venv-new
  xpo-bench compare --ab main HEAD --algos dpo,kto --workloads table
"""
STATUS = {"pass": 0, "regression": 3, "undecided": 4}
AB = {
    "algos": ("dpo", "ipo"),
    "workloads": ("table", "language"),
    "pairs": 8,
    "blocks": 12,
    "seed": 0,
    "device": "auto",
    "quiet": False,
}
"""Options of `--ab` alone, and their defaults."""


@main.command(epilog=COMPARE_EXAMPLES)
@click.argument("old", metavar="BASE|OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--margin",
    multiple=True,
    metavar="METRIC=VALUE",
    help="How far a metric may move; docs/compare.md has the table.",
)
@click.option(
    "--match",
    type=click.Choice(["configuration", "algorithm"]),
    help="What cells must share: all settings, or the names of algorithm, task and experiment; changed "
    "settings are then named and their effect is judged.  [default: configuration]",
)
@click.option(
    "--same-source",
    is_flag=True,
    help="An algorithm or a task whose source differs is undecided, whatever its numbers.",
)
@click.option(
    "--ab", is_flag=True, help="Measure the time of a training step of both on this machine, interleaved."
)
@click.option(
    "--algos", callback=comma_names, help="With --ab: algorithms, separated by commas.  [default: dpo,ipo]"
)
@click.option(
    "--workloads", callback=comma_names, help="With --ab: what they train.  [default: table,language]"
)
@click.option(
    "--pairs",
    type=click.IntRange(3),
    help="With --ab: pairs of new processes; as many again to replicate.  [default: 8]",
)
@click.option(
    "--blocks",
    type=click.IntRange(12),
    help="With --ab: interleaved blocks per side and pair.  [default: 12]",
)
@click.option("--seed", type=int, help="With --ab: of the random order of everything.  [default: 0]")
@click.option("--device", help="With --ab: auto, cpu, cuda or cuda:1.  [default: auto]")
@click.option("--quiet", is_flag=True, default=None, help="With --ab: no progress on stderr.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, with every test or every block."
)
@click.option("--md", metavar="F", help="Write Markdown for a pull request; - is stdout.")
@guarded
def compare(
    old: str,
    new: str,
    margin: tuple[str, ...],
    match: Match | None,
    same_source: bool,
    ab: bool,
    as_json: bool,
    md: str | None,
    **options: Any,
) -> int:
    """Test whether NEW is worse than BASE, both run directories or baselines; with --ab, whether training is
    slower in NEW than in OLD, both virtual environments or git revisions.

    \b
    Exit status: 0 no regression, 2 an error in the command or in one of the two, 3 a regression,
    4 nothing could be decided, 130 interrupted.
    """
    if as_json and md == "-":
        raise UsageError("--json and --md - both write to stdout; give --md a file")
    if ab:
        from xpo_bench.cli.ab import run_ab

        for name, value in (("margin", margin), ("match", match), ("same-source", same_source)):
            if value:
                raise UsageError(f"--{name}: not with --ab, which compares installations and no records")
        given = {name: default if options[name] is None else options[name] for name, default in AB.items()}
        return run_ab(old, new, as_json=as_json, md=md, **given)  # type: ignore[arg-type]
    odd = [name for name, value in options.items() if value is not None]
    if odd:
        raise UsageError(f"--{odd[0]}: goes with --ab; two run directories are compared as they are")
    document = _document(Path(old), Path(new), margin, match or "configuration", same_source)
    return _show(document, as_json, md)


def _document(old: Path, new: Path, margin: tuple[str, ...], match: Match, same_source: bool) -> Document:
    from xpo_bench.compare.baselines import read
    from xpo_bench.compare.margins import with_changes
    from xpo_bench.compare.regressions import find_regressions

    margins = with_changes(margin)
    base, other = read(old), read(new)
    for line in (*base.damaged, *other.damaged):
        say(f"left out: {line}")
    return find_regressions(base, other, margins, match=match, same_source=same_source)


def _show(document: Document, as_json: bool, md: str | None) -> int:
    from xpo_bench.compare.tables import markdown, print_page, regression_page

    if md is not None and md != "-":
        write_file(Path(md), markdown(regression_page(document)).encode(), "--md")
    if as_json:
        print_json(document)
    elif md == "-":
        click.echo(markdown(regression_page(document)), nl=False)
    else:
        from rich.console import Console

        print_page(Console(), regression_page(document))
    return STATUS[document["verdict"]]


BASELINE_EXAMPLES = """\b
Examples:
  xpo-bench run --algos dpo,ipo,kto --suite quick --seeds 5 --out RUN
  xpo-bench baseline RUN -o results/baselines/quick-cpu.json
  xpo-bench compare results/baselines/quick-cpu.json RUN
"""


@main.command(epilog=BASELINE_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, metavar="F", help="File to write.")
@guarded
def baseline(run_dir: Path, out: str) -> int:
    """Write the finished cells of a run into a small file, to commit and to compare later runs with."""
    from xpo_bench.compare.baselines import document_of, read
    from xpo_bench.runner.keys import canonical
    from xpo_bench.runner.store import finite

    found = document_of(read(run_dir))
    content = canonical(finite(found)).encode()
    write_file(Path(out), content, "--out")
    n = len(found["records"])
    say(f"wrote {out}: {n} cell{'s' * (n != 1)} ({len(content) / 1e6:.2f} MB)")
    return 0
