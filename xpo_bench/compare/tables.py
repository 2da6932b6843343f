"""What `compare` says, from its document alone: tables and a few lines, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from xpo_bench.compare.verdicts import SEEDS, TASKS
from xpo_bench.report.format import ABSENT, clean, number
from xpo_bench.report.render.console import bullet, draw, say
from xpo_bench.report.render.markdown import escape, sheet_table
from xpo_bench.report.table import Column, Table

WORDS = {"regression": "REGRESSION", "undecided": "undecided", "pass": "pass"}
SHOWN = 40
"""Rows of a table at most; the JSON document has all."""


def _where(row: Mapping[str, Any]) -> str:
    experiment = f" ({row['experiment']})" if row.get("experiment") else ""
    return clean(f"{row['algorithm']} on {row['task']}{experiment}")


def _word(verdict: str) -> str:
    return WORDS.get(verdict, verdict)


def _metric_word(row: Mapping[str, Any]) -> str:
    return "MOVED" if row["verdict"] == "regression" and row["better"] is None else _word(row["verdict"])


def sheets(document: Mapping[str, Any]) -> list[Table]:
    """The cells, and the metrics that are not equivalent."""
    cells = document["cells"]
    out = [
        Table(
            "Convergence, new against base",
            [
                Column("", [_where(cell) for cell in cells], left=True),
                Column("verdict", [_word(cell["verdict"]) for cell in cells], left=True),
                Column("seeds", [str(cell["seeds"]) for cell in cells]),
                Column("pairs/s", [_pace(cell.get("throughput")) for cell in cells]),
                Column("", [_told(cell, document) for cell in cells], left=True),
            ],
        )
    ]
    moved = [row for row in document["tests"] if row["verdict"] not in ("same", "equivalent")][:SHOWN]
    if moved:
        out.append(
            Table(
                "Metrics that moved, or that these seeds do not settle",
                [
                    Column("", [_where(row) for row in moved], left=True),
                    Column("metric", [row["metric"] for row in moved], left=True),
                    Column("verdict", [_metric_word(row) for row in moved], left=True),
                    Column("base", [number(row["base"]) for row in moved]),
                    Column("new − base", [number(row["difference"]) for row in moved]),
                    Column("95 % interval", [_interval(row["ci95"]) for row in moved]),
                    Column("margin", [number(row["margin"]) for row in moved]),
                    Column("p (Holm)", [number(row.get("p_holm")) for row in moved]),
                ],
            )
        )
    return out


def _told(cell: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if cell["reasons"]:
        return clean("; ".join(cell["reasons"]))
    if cell.get("identical"):
        return "every bit the same"
    own = [row for row in document["tests"] if row["cell"] == cell["cell"]]
    worst = [row["metric"] for row in own if row["verdict"] == cell["verdict"]]
    return (
        clean(", ".join(worst[:3]) + (", ..." if len(worst) > 3 else ""))
        if cell["verdict"] != "equivalent"
        else "within margins"
    )


def _pace(found: Mapping[str, Any] | None) -> str:
    return ABSENT if not found else f"{number(found['base'])} → {number(found['new'])}"


def _interval(found: Sequence[float] | None) -> str:
    return ABSENT if found is None else f"{number(found[0])} to {number(found[1])}"


def lines(document: Mapping[str, Any]) -> list[str]:
    """What was compared, and how far the verdicts reach."""
    out = [f"{side}: {_side(document[side])}" for side in ("base", "new")]
    if document["platforms"]:
        out.append(
            f"Other machines or versions, so that no bits are compared: {'; '.join(document['platforms'])}."
        )
    n = document["comparisons"]
    if n:
        out.append(
            f"{n} comparison{'s' if n != 1 else ''}, p-values corrected for all of them (Holm). A regression is worse beyond its "
            "margin and told apart from nothing at 5 %, and so is a metric without a better side that moved; equivalent means "
            "that the 95 % interval over seeds is within the margin."
        )
    for row in document["algorithms"]:
        if row["p"] is None:
            few = f"{row['seeds']} seeds of {row['tasks']} tasks are too few ({SEEDS} of {TASKS})"
            out.append(f"{clean(row['algorithm'])} over all tasks: {few}.")
        else:
            moved = f"{number(row['mean'])} margins worse on average (interquartile mean {number(row['iqm'])}"
            test = f"sign flips, p {number(row['p_holm'])} after Holm)"
            out.append(
                f"{clean(row['algorithm'])} over {row['tasks']} tasks: {_word(row['verdict'])}, {moved}; {test}."
            )
    out.append(
        "pairs/s decides nothing: seconds of two days do not compare; `xpo-bench compare --ab OLD NEW` measures both in turns."
    )
    return out


def _side(side: Mapping[str, Any]) -> str:
    left = f"; {len(side['left_out'])} files left out, not being whole" if side["left_out"] else ""
    return clean(f"{side['name']}, {side['cells']} cells ({', '.join(side['versions'])}){left}")


def print_compared(console: Console, document: Mapping[str, Any]) -> None:
    """The tables and the lines, on a terminal."""
    for sheet in sheets(document):
        draw(console, sheet.title, sheet.columns)
    for line in lines(document):
        bullet(console, line)
    say(console, f"Verdict: {_word(document['verdict'])}", "bold")


def markdown(document: Mapping[str, Any]) -> str:
    """The same for a pull request."""
    parts = [f"# xpo-bench compare: {_word(document['verdict'])}"]
    for sheet in sheets(document):
        parts += [f"**{escape(sheet.title)}**", sheet_table(sheet)]
    return "\n\n".join([*parts, "\n".join(f"- {escape(line)}" for line in lines(document))]) + "\n"
