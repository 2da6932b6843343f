"""`xpo-bench data --fetch`: real sets through the package index."""

from __future__ import annotations

import os
from pathlib import Path

import click

from xpo_bench.cli.base import print_json
from xpo_bench.cli.waiting import Progress


def fetched(words: str, as_json: bool, quiet: bool) -> int:
    """Fetch the sets that `words` names, or list them all; the exit status."""
    from xpo_bench.data.packages.catalogue import chosen
    from xpo_bench.data.packages.fetch import fetch
    from xpo_bench.data.sources import VARIABLE, cache
    from xpo_bench.runner.store import write_atomic

    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names or names == ["list"]:
        return _listed(as_json)
    folder = Path(os.environ.get(VARIABLE) or cache())
    with Progress(quiet) as progress:
        found = fetch(chosen(names), folder, write_atomic, progress.tell)
    if as_json:
        sets = [
            {
                "name": one.name,
                "path": str(one.path),
                "rows": one.rows,
                "columns": one.columns,
                "new": one.new,
            }
            for one in found
        ]
        print_json({"schema": 1, "fetched": sets})
        return 0
    for one in found:
        there = "" if one.new else ", there already"
        click.echo(f"{one.name}: {one.rows:,} rows of {one.columns} columns in {one.path}{there}")
    click.echo(f"`xpo-bench run --tasks {','.join(one.name for one in found)}` runs on them, offline")
    return 0


def _listed(as_json: bool) -> int:
    from xpo_bench.data.packages.catalogue import SETS
    from xpo_bench.data.packages.fetch import brought

    rows = []
    for one in SETS.values():
        path = brought(one)
        rows.append(
            {
                "name": one.name,
                "about": one.about,
                "package": one.wheel.distribution,
                "version": one.wheel.version,
                "licence": one.wheel.licence,
                "source": one.source,
                "path": None if path is None else str(path),
            }
        )
    if as_json:
        print_json({"schema": 1, "sets": rows})
        return 0
    for row in rows:
        click.echo(f"{row['name']:<12} {row['about']}")
        click.echo(f"{'':<12} {row['source']}")
        click.echo(f"{'':<12} from {row['package']} {row['version']}, {row['licence']}")
        click.echo(f"{'':<12} {'not fetched' if row['path'] is None else row['path']}")
    return 0
