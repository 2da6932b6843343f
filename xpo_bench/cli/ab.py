"""`xpo-bench compare --ab`: throughput of two installations, measured in pairs of processes."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpo_bench.cli.base import print_json, say, terminated
from xpo_bench.errors import Terminated, UsageError, unknown

if TYPE_CHECKING:
    from xpo_bench.compare.speed.rule import RatioDocument

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
        algos: known to both. workloads: some of `WORKLOADS`. pairs: of new processes. blocks: per side and
            pair.
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
    signal.signal(signal.SIGTERM, terminated)
    try:
        from xpo_bench.compare.speed.installations import look, prepare
        from xpo_bench.compare.speed.pairs import NAMES, Protocol, Undecided
        from xpo_bench.compare.speed.rule import measure_ratios
        from xpo_bench.runner.devices import of_this_machine

        asked = {name: look(word) for name, word in zip(NAMES, (old, new), strict=True)}
        protocol = Protocol(pairs, blocks, of_this_machine().resolve(device))
        note = (lambda _: None) if quiet else say
        with tempfile.TemporaryDirectory(prefix="xpo-bench-ab-") as folder:
            try:
                built = {name: prepare(found, Path(folder, name), note) for name, found in asked.items()}
                document = measure_ratios(
                    built, list(dict.fromkeys(algos)), list(dict.fromkeys(workloads)), protocol, seed, note
                )
            except Undecided as error:
                say(str(error))
                return 4
    except KeyboardInterrupt as error:
        say("interrupted: no result was saved")
        return 143 if isinstance(error, Terminated) else 130
    _show(document, as_json, md)
    return STATUS[document["verdict"]]


def _show(document: RatioDocument, as_json: bool, md: str | None) -> None:
    """Print the document, and write its Markdown."""
    from rich.console import Console

    from xpo_bench.compare.tables import markdown, print_page, speed_page
    from xpo_bench.runner.store import write_atomic

    if md is not None and md != "-":
        try:
            write_atomic(Path(md), markdown(speed_page(document)).encode())
        except OSError as error:
            raise UsageError(f"{md}: cannot be written ({error.strerror})") from None
    if as_json:
        print_json(document)
    elif md == "-":
        click.echo(markdown(speed_page(document)), nl=False)
    else:
        print_page(Console(), speed_page(document))
