"""`xpo-bench report`."""

from __future__ import annotations

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
"""


@main.command(epilog=REPORT_EXAMPLES)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--html",
    metavar="F",
    help="Write a page: one file, offline, light and dark.  "
    "[default: RUN/report.html, without --md and --json]",
)
@click.option("--md", metavar="F", help="Write Markdown for a pull request; - is stdout.")
@click.option("--json", "as_json", metavar="F", help="Write the same as one JSON document; - is stdout.")
@click.option(
    "--baseline",
    metavar="ALGO",
    help="Test every other algorithm against this one.  [default: dpo, or the first]",
)
@guarded
def report(run_dir: Path, html: str | None, md: str | None, as_json: str | None, baseline: str | None) -> int:
    """Write what `show` prints as a page, Markdown or JSON; the page also has the command of every cell."""
    from xpo_bench.metrics.registry import learn_from
    from xpo_bench.runner.store import Store, write_atomic

    store = Store.existing(run_dir)
    records = store.records()
    learn_from(records)
    tell_damaged(store)
    if not records:
        raise UsageError(f"{run_dir}: holds no finished cell yet")
    if html is None and md is None and as_json is None:
        html = str(run_dir / "report.html")
    for option, name in (("--html", html), ("--md", md), ("--json", as_json)):
        if (
            name is not None
            and name != "-"
            and (not name or Path(name).is_dir() or not Path(name).absolute().parent.is_dir())
        ):
            raise UsageError(f"{option} {name}: cannot be written; name a file in a directory that exists")
    if html == "-":
        raise UsageError("--html -: a page goes to a file; --md - and --json - write to stdout")
    if md == as_json == "-":
        raise UsageError("--md - --json -: only one of them can go to stdout")
    from xpo_bench.report.content import Comparison, assemble

    content = assemble(run_dir, records, store.read_run(), comparison=Comparison(baseline))
    written: dict[str, str] = {}
    if html is not None:
        from xpo_bench.report.render.html import page

        written[html] = page(content)
    if md is not None:
        from xpo_bench.report.render.markdown import markdown

        written[md] = markdown(content)
    if as_json is not None:
        from xpo_bench.report.render.json import report_document
        from xpo_bench.runner.keys import canonical
        from xpo_bench.runner.store import finite

        written[as_json] = canonical(finite(report_document(content))) + "\n"
    if "-" in written:
        click.echo(written.pop("-"), nl=False)
    for name, text in written.items():
        try:
            write_atomic(Path(name), text.encode())
        except OSError as error:
            raise UsageError(f"{name}: cannot be written ({error.strerror})") from None
        say(f"wrote {name} ({len(text.encode()) / 1e6:.2f} MB)")
    return 0
