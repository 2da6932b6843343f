"""`xpo-bench new-plugin`."""

from __future__ import annotations

from pathlib import Path

import click

from xpo_bench.cli.base import guarded, main

NEW_PLUGIN_EXAMPLES = """\b
Examples:
  xpo-bench new-plugin apo-zero
  xpo-bench new-plugin apo-zero --dir ~/code/apo
"""


@main.command("new-plugin", epilog=NEW_PLUGIN_EXAMPLES)
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    metavar="D",
    help="Directory to write.  [default: xpo-bench-NAME]",
)
@guarded
def new_plugin(name: str, folder: Path | None) -> int:
    """Write a publishable package that offers the algorithm NAME.

    It holds a pyproject.toml with the entry point, one algorithm (DPO's equation, to be replaced), one test
    file that runs the conformance kit, a README and a CI workflow. Nothing that exists is overwritten.
    """
    from xpo_bench.testing.scaffold import scaffold

    made = scaffold(name, folder)
    click.echo(f"wrote {made.folder}: the algorithm {name} in {made.module}.py")
    click.echo("Next:")
    for line in (
        f"cd {made.folder}",
        f"# put your equation into {made.module}.py, and a number of your paper into tests/",
        'python -m pip install -e ".[test]"',
        "python -m pytest                # the conformance kit and your own tests",
        f"xpo-bench run --algos dpo,{name} --tasks bandit",
        "python -m build                 # dist/: what a package index takes",
    ):
        click.echo(f"  {line}")
    return 0
