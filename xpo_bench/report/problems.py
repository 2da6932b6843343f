"""What went wrong in a run, and what was not run at all, a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from xpo_bench.report.format import clean, counted
from xpo_bench.report.records import Record
from xpo_bench.report.run_file import RunFile
from xpo_bench.runner.run_document import Skipped


def problems(records: Sequence[Record]) -> list[str]:
    """One line per cell that is not ok; divergence that the task expects is said to be so."""
    return [
        f"{r.algorithm.name} on {r.task.name}, seed {r.seed}: {r.status}: {_reason(r)}"
        for r in records
        if r.status != "ok"
    ]


def _reason(record: Record) -> str:
    if record.as_expected:
        return "as the task expects"
    if record.status == "diverged" and record.error is None:
        return "loss, gradient or a parameter was no longer finite"
    return (record.error.message if record.error else "") or "no message"


def failed_metrics(records: Sequence[Record]) -> list[str]:
    """One line per metric of a plugin and way in which it failed: in how many cells it was left out."""
    counts: Counter[tuple[str, str]] = Counter()
    for r in records:
        counts.update(r.notes.metric_errors.items())
    return [
        f"metric {clean(name)}: left out of {counted(n, 'cell')}: {clean(why)}"
        for (name, why), n in counts.items()
    ]


def not_run(document: RunFile) -> list[str]:
    """Tasks whose data cannot be had, and combinations that `all` left out."""
    return [f"{u.get('task')}: {u.get('reason')}" for u in document.unreachable] + left_out(document.skipped)


def left_out(skipped: Sequence[Skipped]) -> list[str]:
    """Algorithms that share a task and a reason in one line."""
    together: dict[tuple[str, str], list[str]] = {}
    for s in skipped:
        together.setdefault((str(s.get("task")), str(s.get("reason"))), []).append(str(s.get("algorithm")))
    return [f"{', '.join(names)} on {task}: {reason}" for (task, reason), names in together.items()]
