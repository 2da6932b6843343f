"""`xpo-bench report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from xpo_bench.cli.base import guarded, main, say, tell_damaged
from xpo_bench.errors import UsageError

REPORT_EXAMPLES = """\b
Examples:
  xpo-bench report results/runs/3f2a9c0d1b7e
  xpo-bench report results/runs/3f2a9c0d1b7e --html report.html --md report.md
  xpo-bench report results/runs/3f2a9c0d1b7e --md - --baseline ipo
  xpo-bench report results/runs/3f2a9c0d1b7e --json report.json
  xpo-bench report results/runs/3f2a9c0d1b7e --latex tables.tex
"""


@main.command(epilog=REPORT_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--html",
    metavar="F",
    help="Write a page: one file, offline, light and dark.  "
    "[default: RUN/report.html, without the other formats]",
)
@click.option("--md", metavar="F", help="Write Markdown for a pull request; - is stdout.")
@click.option("--json", "as_json", metavar="F", help="Write the same as one JSON document; - is stdout.")
@click.option(
    "--latex", "as_latex", metavar="F", help="Write LaTeX tables (booktabs) for a paper; - is stdout."
)
@click.option(
    "--baseline",
    metavar="ALGO",
    help="Test every other algorithm against this one.  [default: dpo, or the first]",
)
@guarded
def report(
    run_dir: Path,
    html: str | None,
    md: str | None,
    as_json: str | None,
    as_latex: str | None,
    baseline: str | None,
) -> int:
    """Write what `show` prints as a page, Markdown, LaTeX or JSON; the page also has every cell's command."""
    from xpo_bench.metrics.registry import learn_from
    from xpo_bench.runner.store import Store

    store = Store.existing(run_dir)
    records = store.records()
    learn_from(records)
    tell_damaged(store)
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if html is None and md is None and as_json is None and as_latex is None:
        html = str(run_dir / "report.html")
    _check({"--html": html, "--md": md, "--json": as_json, "--latex": as_latex})
    from xpo_bench.report.content import Comparison, assemble

    content = assemble(run_dir, records, store.read_run(), comparison=Comparison(baseline))
    from xpo_bench.report.render.files import rendered

    against = ["--baseline", baseline] if baseline else []
    command = ["xpo-bench", "report", str(run_dir), *against, "--latex", str(as_latex)]
    asked = {".html": html, ".md": md, ".json": as_json, ".tex": as_latex}
    _write({name: rendered(content, kind, command) for kind, name in asked.items() if name is not None})
    return 0


def _check(files: Mapping[str, str | None]) -> None:
    """Refuse what cannot be written, before anything is computed.

    Args:
        files: option -> file.
    """
    for option, name in files.items():
        if (
            name is not None
            and name != "-"
            and (not name or Path(name).is_dir() or not Path(name).absolute().parent.is_dir())
        ):
            raise UsageError(f"{option} {name}: cannot be written; name a file in a directory that exists")
    if files["--html"] == "-":
        raise UsageError("--html -: a page goes to a file; --md -, --json - and --latex - write to stdout")
    if len(streams := [option for option, name in files.items() if name == "-"]) > 1:
        raise UsageError(f"{' - '.join(streams)} -: only one of them can go to stdout")


def _write(written: dict[str, str]) -> None:
    from xpo_bench.runner.store import write_atomic

    if "-" in written:
        click.echo(written.pop("-"), nl=False)
    for name, text in written.items():
        try:
            write_atomic(Path(name), text.encode())
        except OSError as error:
            raise UsageError(f"{name}: cannot be written ({error.strerror})") from None
        say(f"wrote {name} ({len(text.encode()) / 1e6:.2f} MB)")
