"""The tables of one task: how good the algorithms are at what its data asks for, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from xpo_bench.report.format import ABSENT, clean, mean_pm, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, broken_header, draw, row_label, say
from xpo_bench.report.tables.columns import metric_column, unlearns
from xpo_bench.report.tables.longer_rule import LONGER, longer
from xpo_bench.runner.remarks import remarks

WORLD = (
    "gold_reward",
    "frontier_gap",
    "kl",
    "regret",
    "collapsed",
    "collapse_step",
    "rejected_drift",
    "rejected_prob",
    "displacement",
    "reward_accuracy",
    "accuracy_lc",
    "heldout_reward_accuracy",
    "heldout_accuracy_lc",
    "calibration_error",
    "acceptance_rate",
    "pairs_per_s",
)
"""The metrics of the table of an enumerable world; all others are in the records."""
TEXT = (
    "gold_reward",
    "gold_gain",
    "win_rate",
    "heldout_reward_accuracy",
    "heldout_accuracy_lc",
    "kl",
    "collapsed",
    "collapse_step",
    "rejected_drift",
    "rejected_prob",
    "displacement",
    "reward_accuracy",
    "accuracy_lc",
    "sample_length",
    "calibration_error",
    "acceptance_rate",
)
"""The metrics of a language model's table."""
UNLEARNING = (
    "forget_logp",
    "forget_token_logp",
    "forget_change",
    "retain_logp",
    "retain_token_logp",
    "retain_change",
    "kl",
    "collapsed",
    "collapse_step",
    "rejected_drift",
)
"""The metrics of a forget/retain task's table."""
COST = ("pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "total_flops")
"""The metrics of a language model's cost table."""
LANGUAGE = ("overhead", "peak_memory_mb", "total_flops")
"""Costs that are measured on language models alone: where one is known, costs get a table of their own."""


def print_task(console: Console, task: str, groups: Sequence[SeedGroup]) -> None:
    """Draw the tables of one task."""
    for sheet in task_sheets(task, groups):
        draw(console, sheet.title, sheet.columns, aside=sheet.aside)
        if sheet.note:
            say(console, sheet.note, "dim")
            console.print()


def task_sheets(task: str, groups: Sequence[SeedGroup]) -> list[Table]:
    """One task: algorithms as rows, with the learning rate used, the runs by status, and mean ± half
    interval.

    Forget/retain tasks show forget and retain log-probabilities; costs of language models stand in a second
    table.
    """
    language = any(g.known(m) for g in groups for m in LANGUAGE)
    forget = all(map(unlearns, groups))
    quality = UNLEARNING if forget else TEXT if language else WORLD
    title = ": ".join(
        filter(None, (f"{clean(task)}{' (unlearning)' if forget else ''}", ", ".join(_facts(groups))))
    )
    who = Column("", [row_label(g.label) for g in groups], left=True)
    lr = Column("lr", [_short((g.records[0].get("train") or {}).get("lr")) for g in groups])
    runs = Column("runs", [_status(g) for g in groups], left=True)
    columns = _columns([*quality, *_of_plugins(groups)], groups)
    rows = _with_longer([who, lr, runs, *columns.values()], columns, groups)
    note = ""
    if forget:
        note = (
            "In nats, changes since step 0. Forgetting is read against retaining, so that neither has a best."
        )
    elif len(rows[0].cells) > len(groups):
        note = f"{LONGER}: the rule that prefers the completion with more tokens, on the same pairs; no algorithm."
    if "regret" in columns and not all(g.known("regret") for g in groups if g.counted):
        note = f"{note} regret: – where an algorithm names no strength of its KL, and so no optimum.".strip()
    told = dict.fromkeys(remark for g in groups for r in g.records for remark in remarks(r))
    note = " ".join(filter(None, (note, *(f"{clean(remark)}." for remark in told))))
    sheets = [Table(title, rows, note, aside=[len(groups)])]
    if language:
        sheets.append(Table(f"{clean(task)}: cost", [who, *_columns(COST, groups).values()]))
    return sheets


def _of_plugins(groups: Sequence[SeedGroup]) -> list[str]:
    """The metrics that plugins measured, each followed by itself on held-out pairs."""
    named = dict.fromkeys(
        name for g in groups for r in g.records for name in r.get("metric_definitions") or {}
    )
    return [prefix + name for name in named for prefix in ("", "heldout_")]


def _columns(names: Sequence[str], groups: Sequence[SeedGroup]) -> dict[str, Column]:
    """Those of the metrics that some run has."""
    return {
        m: metric_column(broken_header(m), m, list(groups)) for m in names if any(g.known(m) for g in groups)
    }


def _with_longer(
    shown: Sequence[Column], metrics: dict[str, Column], groups: Sequence[SeedGroup]
) -> list[Column]:
    """The columns with the row of the always-longer rule below, where its accuracy is known; it never
    competes.
    """
    cells = {id(column): mean_pm(found) for m, column in metrics.items() if (found := longer(groups, m))}
    if not cells:
        return list(shown)
    cells[id(shown[0])] = LONGER
    return [
        replace(
            c,
            cells=[*c.cells, cells.get(id(c), "" if c.left else ABSENT)],
            values=[*c.values, None] if c.values else (),
        )
        for c in shown
    ]


def _facts(groups: Sequence[SeedGroup]) -> list[str]:
    """What all runs of a task have in common."""
    records = [r for g in groups for r in g.records]
    facts = []
    optimizers = {str((r.get("train") or {}).get("optimizer")) for r in records}
    if len(optimizers) == 1:
        facts.append(clean(optimizers.pop()))
    steps = {(r["task"].get("budget") or {}).get("steps") for r in records}
    if len(steps) == 1:
        facts.append(f"{steps.pop()} steps")
    seeds = {len(g.records) for g in groups}
    if len(seeds) == 1:
        n = seeds.pop()
        facts.append(f"{n} seeds, mean ± half its 95 % interval" if n > 1 else "1 seed, no interval")
    return facts


def _short(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else ABSENT


def _status(g: SeedGroup) -> str:
    return ", ".join(
        f"{n} {clean(s)}" for s, n in sorted(g.status.items(), key=lambda item: (item[0] != "ok", item[0]))
    )
