"""One line per data set of a run: rows used and dropped, its layout, what was truncated, the chat
template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xpo_bench.report.runs import Record

SHOWN = 60
"""Characters of a template's name."""
COUNTS = (
    ("truncated", "truncated"),
    ("boundary_merges", "where prompt and completion merge into one token"),
    ("equal_ids", "left out for equal tokens on both sides"),
)
"""Counts of `task.data`, in words."""


TEMPLATES = {"model": "the model's chat template", "plain": "the suite's plain chat template"}
"""How conversational rows became text, in words."""


def data_lines(records: Iterable[Record]) -> list[str]:
    """What was read for each task, from `task.data` of the records; nothing of tasks that make their own
    rows.

    Fields that a record does not have are left out. Cells of one task that read different rows have a line
    each.
    """
    seen: dict[tuple[str, str], None] = {}
    for record in records:
        task = record["task"]
        data = dict(task.get("data") or {})
        if "truncated" not in data and (cut := (record.get("notes") or {}).get("truncated")):
            data["truncated"] = cut
        if line := _line(data):
            seen[str(task["name"]), line] = None
    return [f"{name}: {line}" for name, line in seen]


def _line(data: Mapping[str, Any]) -> str:
    dropped, notes, unfit = (data.get(key) or {} for key in ("dropped", "notes", "unfit"))
    counted = [
        f"{_rows(data[key])} {words}" for key, words in COUNTS if isinstance(data.get(key), int) and data[key]
    ]
    if not (data.get("layout") or dropped or notes or counted or unfit or data.get("template")):
        return ""
    lost = sum(dropped.values())
    used = (data.get("train") or 0) + (data.get("heldout") or 0)
    rows = data.get("rows") or used
    parts = [
        f"{used:,} of {rows:,} rows used" if used + lost == rows else f"{used:,} examples from {rows:,} rows"
    ]
    if lost:
        parts.append(
            f"{lost:,} dropped ({', '.join(f'{n:,} {reason}' for reason, n in sorted(dropped.items()))})"
        )
    parts += [f"{_rows(n)}: {what}" for what, n in sorted(notes.items())]
    parts += [*counted, *(f"{_rows(n)} left out: {reason}" for reason, n in sorted(unfit.items()))]
    if layout := data.get("layout"):
        columns = ", ".join(f"{new} from {old}" for new, old in (data.get("columns") or {}).items())
        parts.append(f"layout {layout}" + (f" ({columns})" if columns else ""))
    if "template" in data:
        parts.append(_template(data["template"]))
    return "; ".join(parts)


def _rows(n: int) -> str:
    return f"{n:,} row{'s' * (n != 1)}"


def _template(template: Any) -> str:
    if not template:
        return "no chat template (rows are text)"
    if isinstance(template, Mapping):
        template = template.get("name") or next(iter(template.values()), "")
    text = TEMPLATES.get(str(template), f"chat template {template}")
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
