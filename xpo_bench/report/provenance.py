"""What was run: configurations, settings of tasks, and machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xpo_bench.report.format import ABSENT, clean, counted, settings
from xpo_bench.report.records import Machine, Record
from xpo_bench.report.table import Column, Table

CONFIGURATION = ("algorithm", "configuration", "plugin", "distribution", "version", "tasks")
SETTING = ("task", "version", "policy", "data", "rows", "budget", "options", "seeds")


def configurations(records: Sequence[Record], most: int | None = None) -> Table:
    """Every configuration of an algorithm, where it is from, and on which tasks it ran.

    Args:
        most: rows of the table, all by default.
    """
    tasks: dict[tuple[str, ...], set[str]] = {}
    known: dict[int, tuple[str, ...]] = {}  # records have algorithms in common: each is told once
    for r in records:
        if (row := known.get(id(r.algorithm))) is None:
            a = r.algorithm
            told = (a.name, settings(a.config), a.plugin, a.distribution, a.version)
            row = known[id(a)] = tuple(ABSENT if part is None else str(part) for part in told)
        tasks.setdefault(row, set()).add(r.task.name)
    rows = [(*row, ", ".join(sorted(names))) for row, names in sorted(tasks.items())]
    return _text_table("Algorithms as they were run", CONFIGURATION, rows, most)


def task_settings(records: Sequence[Record], most: int | None = None) -> Table:
    """Every setting of a task: policy, data, budget and options, with the seeds.

    Args:
        most: rows of the table, all by default.
    """
    seeds: dict[tuple[str, ...], set[str]] = {}
    known: dict[tuple[int, object], tuple[str, ...]] = {}
    for r in records:
        of = (id(r.task), r.train.get("optimizer"))
        if (row := known.get(of)) is None:
            row = known[of] = _setting(r)
        seeds.setdefault(row, set()).add(str(r.seed))
    rows = [
        (*row, ", ".join(sorted(numbers, key=lambda seed: (len(seed), seed))))  # 2 before 10
        for row, numbers in sorted(seeds.items())
    ]
    return _text_table("Tasks as they were run", SETTING, rows, most)


def _setting(r: Record) -> tuple[str, ...]:
    task, data, budget = r.task, r.task.data, r.task.budget
    size = f" ({task.model['parameters']} parameters)" if task.model.get("parameters") else ""
    train, heldout = (ABSENT if n is None else n for n in (data.train, data.heldout))
    dropped = sum(data.dropped.values())
    steps, batch = budget.get("steps"), budget.get("batch_size")
    spent = [
        f"{steps} steps" if steps is not None else "trained elsewhere",
        f"batch {batch}" if batch is not None else "",
        str(r.train.get("optimizer") or ""),
        str(budget.get("dtype")),
    ]
    options = {name: value for name, value in task.options.items() if value is not None}
    return (
        task.name,
        str(task.version),
        f"{task.model.get('name')}{size}",
        str(data.source),
        f"{train} + {heldout} held out{f', {dropped} dropped' if dropped else ''}",
        ", ".join(filter(None, spent)),
        ", ".join(f"{name}={value}" for name, value in options.items()) or ABSENT,
    )


def _text_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], most: int | None) -> Table:
    drawn = rows[:most]
    columns = [(name, [row[i] for row in drawn]) for i, name in enumerate(header)]
    return Table(
        title,
        [
            Column(name, list(map(clean, cells)), left=True, text=i > 0)
            for i, (name, cells) in enumerate(columns)
        ],
        left_out=len(rows) - len(drawn),
    )


def machines(records: Iterable[Record]) -> list[str]:
    """What the cells ran on, each kind of machine once."""
    cells: dict[str, int] = {}
    known: dict[int, str] = {}
    for r in records:
        if (text := known.get(id(r.environment))) is None:
            text = known[id(r.environment)] = _machine(r.environment)
        cells[text] = cells.get(text, 0) + 1
    return [f"{n} cells: {text}" if len(cells) > 1 else text for text, n in cells.items()]


def _machine(m: Machine) -> str:
    facts = [m.accelerator, m.processor, m.platform, f"device {m.device}"]
    facts += [counted(n, what) for n, what in ((m.cores, "core"), (m.threads, "thread")) if n is not None]
    facts += [f"Python {m.python}"] if m.python else []
    facts += [", ".join(f"{name} {version}" for name, version in m.packages.items())]
    return ", ".join(filter(None, facts))
