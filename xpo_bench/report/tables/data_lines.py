"""One line per data set of a run: rows used and dropped, layout, what was truncated, chat template."""

from __future__ import annotations

from collections.abc import Iterable

from xpo_bench.data.splits import unseen_prompts
from xpo_bench.report.format import counted
from xpo_bench.report.records import Data, Record, Task

SHOWN = 60
"""Characters of a template's name."""
TEMPLATES = {"model": "the model's chat template", "plain": "the suite's plain chat template"}
"""How conversational rows became text, in words."""


def data_lines(records: Iterable[Record]) -> list[str]:
    """What was read for each task, and what its held-out rows share with its training rows; nothing of tasks
    that make their own rows and hold none out.

    Cells of one task that read different rows have a line each. In the order of their names: records come in
    the order of their keys, which change with every source file.
    """
    tasks = {id(record.task): record.task for record in records}  # many records have one in common
    seen = {(task.name, line) for task in tasks.values() if (line := _line(task))}
    return [f"{name}: {line}" for name, line in sorted(seen)]


def _line(task: Task) -> str:
    data, split = task.data, _split(task)
    counts = {
        "truncated": data.truncated,
        "where prompt and completion merge into one token": data.boundary_merges,
        "left out for equal tokens on both sides": data.equal_ids,
    }
    remarkable = [f"{counted(n, 'row')} {what}" for what, n in counts.items() if n]
    odd = (data.layout, data.dropped, data.notes, data.unfit, data.template, remarkable, split)
    if not any(odd):
        return ""
    parts = [_used(data), *split]
    if lost := sum(data.dropped.values()):
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(data.dropped.items()))
        parts.append(f"{lost:,} dropped ({reasons})")
    parts += [f"{counted(n, 'row')}: {what}" for what, n in sorted(data.notes.items())]
    parts += remarkable
    parts += [f"{counted(n, 'row')} left out: {reason}" for reason, n in sorted(data.unfit.items())]
    if data.layout:
        columns = ", ".join(f"{new} from {old}" for new, old in data.columns.items())
        parts.append(f"layout {data.layout}" + (f" ({columns})" if columns else ""))
    if data.told_template and (data.template or data.layout):  # rows that no file holds are no messages
        parts.append(_template(data.template))
    return "; ".join(parts)


def _used(data: Data) -> str:
    used = (data.train or 0) + (data.heldout or 0)
    rows = data.rows or used
    if used + sum(data.dropped.values()) == rows:
        return f"{used:,} of {rows:,} rows used"
    return f"{used:,} examples from {rows:,} rows"  # a row may hold several, or none


def _split(task: Task) -> list[str]:
    """How rows were held out, and what of them training sees too."""
    data, out = task.data, []
    heldout, shared = data.heldout or 0, data.overlap
    drawn = bool(task.options.get("heldout"))
    if not heldout or not shared:  # a record that is older than the counts says nothing of them
        return []
    if drawn:
        out.append(f"{heldout:,} held out by {task.options.get('split_by', 'row')}")
    both = [
        f"{counted(shared[f'{what}s'], what)} (in {shared[f'{what}_rows']:,} of {heldout:,} held-out rows)"
        for what in ("prompt", "completion")
        if shared[f"{what}s"]
    ]
    if both:
        out.append(f"on both sides of the split: {', '.join(both)}")
    if task.model.get("name") == "tabular" and (unseen := heldout - shared["prompt_rows"]):
        out.append(unseen_prompts(unseen, heldout, drawn and task.options.get("split_by", "row") != "row"))
    return out


def _template(name: str | None) -> str:
    if not name:
        return "no chat template (rows are text)"
    text = TEMPLATES.get(name, f"chat template {name}")
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
