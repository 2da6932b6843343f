"""`xpo-bench compare`."""

from __future__ import annotations

import click

from xpo_bench.cli.base import guarded, main
from xpo_bench.errors import UsageError

COMPARE_EXAMPLES = """\b
Examples:
  xpo-bench compare --ab .venv-old .venv-new
  xpo-bench compare --ab v0.1.0 HEAD --algos dpo,kto --workloads table
  xpo-bench compare --ab main HEAD --md compare.md
"""


def _names(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


@main.command(epilog=COMPARE_EXAMPLES)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--ab", is_flag=True, help="Measure the time of a training step of both on this machine, in turns.")
@click.option("--algos", default="dpo,ipo", show_default=True, callback=_names, help="Algorithms, separated by commas.")
@click.option(
    "--workloads", default="table,language", show_default=True, callback=_names, help="What they train: table, language."
)
@click.option(
    "--pairs",
    type=click.IntRange(3),
    default=8,
    show_default=True,
    help="Fresh process pairs; as many again for what is suspect.",
)
@click.option("--blocks", type=click.IntRange(12), default=12, show_default=True, help="Alternating blocks per side and pair.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random order of everything.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, with every block.")
@click.option("--md", metavar="F", help="Write Markdown for a pull request; - is stdout.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@guarded
def compare(ab: bool, **options: object) -> int:
    """Tell whether training has become slower: OLD and NEW are virtual environments or git revisions.

    \b
    Exit status: 0 no regression, 2 something in the command or a side is wrong, 3 a regression,
    4 nothing could be decided, 130 interrupted.
    """
    from xpo_bench.cli.ab import run_ab

    if not ab:
        raise UsageError("comparing run directories needs their records and is not there yet; --ab compares throughput")
    return run_ab(**options)  # type: ignore[arg-type]
