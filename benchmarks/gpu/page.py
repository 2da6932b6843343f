"""gpu.json as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def page(document: Mapping[str, Any]) -> str:
    """Markdown: where and what was measured, a line per part, and the rows of each."""
    parts = document["parts"]
    lines = [f"`{document['command']}`", "", where(document), ""]
    if document["rehearsal"]:
        lines += ["**device: cpu. A rehearsal at small sizes: no number here says anything of a GPU.**", ""]
    summary = [
        {"part": p["part"], "what": p["what"], "status": p["status"], "seconds": p["seconds"]} for p in parts
    ]
    lines += table(summary)
    for part in parts:
        if part["rows"]:
            lines += ["", f"## {part['part']}", "", *table(part["rows"])]
        if "error" in part:
            lines += ["", f"{part['part']} is {part['status']}:", "", "```", part["error"].strip(), "```"]
    return "\n".join(lines) + "\n"


def where(document: Mapping[str, Any]) -> str:
    """The card, the driver, the commit and the versions, in a sentence."""
    cards = document["card"] or []
    named = [f"{card['name']} ({card['memory']}, driver {card['driver']})" for card in cards]
    versions = [f"{name} {version}" for name, version in document["packages"].items()]
    commit = document["commit"] or "not known"
    return "; ".join(
        [
            f"device: {document['device']}",
            *named,
            f"commit {commit}",
            f"Python {document['python']}",
            ", ".join(versions),
        ]
    )


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table; its columns are the keys in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(cell(row.get(name)) for name in columns) + " |" for row in rows]


def cell(value: object) -> str:
    """A value: four digits of a number, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        text = ", ".join(map(cell, value)) if isinstance(value, list) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
