"""What is installed, how far a run is, and what the machine can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpo_bench.report.format import ABSENT, clean
from xpo_bench.report.records import COUNTED
from xpo_bench.report.render.console import bullet, say


def print_status(console: Console, planned: int, counts: Mapping[str, int]) -> None:
    """N of M planned cells by status; `counts` may hold "missing"."""
    finished = sum(n for s, n in counts.items() if s in COUNTED)
    say(console, f"{finished} of {planned} planned cells finished", "bold")
    order = sorted(counts, key=lambda s: (s != "ok", s == "missing", s))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for s in order:
        table.add_row(
            Text(str(counts[s])), Text(clean(s), style="" if s in (*COUNTED, "missing") else "bold")
        )
    console.print(table)


LIST_COLUMNS: Mapping[str, Sequence[str]] = {
    "algos": ("name", "data", "fields", "about"),
    "tasks": ("name", "model", "steps", "about", "cannot_see"),
    "metrics": ("name", "unit", "better", "definition"),
    "trackers": ("name", "about"),
    "claims": ("name", "paper", "about"),
    "plugins": ("name", "distribution", "version", "hooks", "status"),
}


def print_list(console: Console, what: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """What is installed; the last column may take several lines. Errors of plugins stand under the table."""
    names = LIST_COLUMNS.get(what) or tuple(rows[0] if rows else ("name",))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in names:
        last = name == names[-1]
        table.add_column(
            Text(name), no_wrap=name == names[0], overflow="fold", ratio=1 if last else None, justify="left"
        )
    for row in rows:
        table.add_row(*(Text(_plain(row.get(name), first_line=name == "definition")) for name in names))
    console.print(table)
    for row in rows:
        if row.get("error"):
            bullet(
                console, f"{row.get('name')} ({row.get('distribution')} {row.get('version')}): {row['error']}"
            )
    mentioned = Counter(str(row.get("distribution")) for row in rows if row.get("distribution"))
    origin = ", ".join(f"{n} from {clean(d)}" for d, n in mentioned.most_common())
    say(console, f"{len(rows)} {what}{': ' + origin if len(mentioned) > 1 else ''}", "dim")


def _plain(value: Any, first_line: bool = False) -> str:
    """A value as text: `beta=0.1, gamma=1` for dictionaries, a comma list for lists."""
    if value is None or value in ([], {}, ""):
        return ABSENT
    if isinstance(value, Mapping):
        return clean(
            ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in value.items())
        )
    if isinstance(value, list | tuple):
        return clean(", ".join(map(str, value)))
    if first_line:
        return clean(" ".join(str(value).split("\n\n")[0].split("\nSource:")[0].split()))
    return clean(value)


def print_doctor(console: Console, findings: Sequence[Mapping[str, Any]]) -> None:
    """One line per finding: fine, note or wrong."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for finding in findings:
        status = clean(finding["status"])
        style = {"wrong": "bold red", "note": "yellow"}.get(status, "green")
        table.add_row(Text(status, style=style), Text(clean(finding["what"])), Text(clean(finding["detail"])))
    console.print(table)
