"""`xpo-bench compare --ab`: throughput of two environments or revisions, measured in pairs on this machine."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from xpo_bench.cli.base import print_json, say
from xpo_bench.errors import Terminated, UsageError, unknown

WORKLOADS = ("table", "language")
STATUS = {"pass": 0, "regression": 3, "inconclusive": 4}


def run_ab(
    old: str,
    new: str,
    *,
    algos: Sequence[str] = ("dpo", "ipo"),
    workloads: Sequence[str] = WORKLOADS,
    pairs: int = 8,
    blocks: int = 12,
    seed: int = 0,
    device: str = "auto",
    as_json: bool = False,
    md: str | None = None,
    quiet: bool = False,
) -> int:
    """Measure, print, and return the exit status: 0, 3 for a regression, 4 where nothing could be decided.

    Args:
        old, new: directories of virtual environments, or git revisions of the repository around the current
            directory.
        algos: known to both sides. workloads: some of `WORKLOADS`. pairs: fresh process pairs. blocks: per
            side and pair.
        md: file for Markdown; - is stdout.

    Raises:
        UsageError: no such environment or revision, or it cannot run a workload.
    """
    for name in workloads:
        if name not in WORKLOADS:
            raise UsageError(unknown("workload", name, WORKLOADS))
    if not algos or not workloads:
        raise UsageError("nothing to compare: name an algorithm and a workload")
    if as_json and md == "-":
        raise UsageError("--json and --md - both write to stdout; give --md a file")
    if (
        md is not None
        and md != "-"
        and (not md or Path(md).is_dir() or not Path(md).absolute().parent.is_dir())
    ):
        raise UsageError(f"--md {md}: cannot be written; name a file in a directory that exists")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        from xpo_bench.compare.speed.installations import look, prepare
        from xpo_bench.compare.speed.pairs import Protocol, Undecided
        from xpo_bench.compare.speed.rule import measure_ratios
        from xpo_bench.runner.devices import of_this_machine

        asked = {"old": look(old), "new": look(new)}
        protocol = Protocol(pairs, blocks, of_this_machine().resolve(device))
        note = (lambda _: None) if quiet else say
        with tempfile.TemporaryDirectory(prefix="xpo-bench-ab-") as folder:
            try:
                sides = {name: prepare(found, Path(folder, name), note) for name, found in asked.items()}
                document = measure_ratios(
                    sides, list(dict.fromkeys(algos)), list(dict.fromkeys(workloads)), protocol, seed, note
                )
            except Undecided as error:
                say(str(error))
                return 4
    except KeyboardInterrupt as error:
        say("interrupted: nothing is kept of a comparison")
        return 143 if isinstance(error, Terminated) else 130
    _show(document, as_json, md)
    return STATUS[document["verdict"]]


def _show(document: Mapping[str, Any], as_json: bool, md: str | None) -> None:
    """Print the document, and write its Markdown."""
    from rich.console import Console

    from xpo_bench.compare.speed.tables import markdown, print_paired
    from xpo_bench.runner.store import write_atomic

    if md is not None and md != "-":
        try:
            write_atomic(Path(md), markdown(document).encode())
        except OSError as error:
            raise UsageError(f"{md}: cannot be written ({error.strerror})") from None
    if as_json:
        print_json(document)
    elif md == "-":
        click.echo(markdown(document), nl=False)
    else:
        print_paired(Console(), document)


def _terminated(*_: object) -> None:
    raise Terminated
