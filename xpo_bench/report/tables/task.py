"""The tables of one task: how good the algorithms are at what its data asks for, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number, statuses
from xpo_bench.report.items import ItemReader, no_items
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, broken_header, labels
from xpo_bench.report.tables.columns import metric_column
from xpo_bench.report.tables.longer_rule import LONGER, longer
from xpo_bench.report.verdicts.task import TaskVerdict
from xpo_bench.runner.remarks import cannot_see, remarks

WORLD = (
    "attained_1",
    "attained",
    "gold_reward",
    "frontier_gap",
    "kl",
    "regret",
    "exploitability",
    "borda",
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
MARKED = "* the best, and what cannot be separated from it by paired tests."
LANGUAGE = ("overhead", "peak_memory_mb", "total_flops")
"""Costs that are measured on language models alone: where one is known, costs get a table of their own."""


def task_tables(
    task: str,
    groups: Sequence[SeedGroup],
    items: ItemReader = no_items,
    shown: Sequence[str] = (),
    verdict: TaskVerdict | None = None,
    rows: int | None = None,
) -> list[Table]:
    """One task: algorithms as rows, with the learning rate used, the runs by status, and mean ± half
    interval.

    Forget/retain tasks show forget and retain log-probabilities; costs of language models stand in a second
    table.

    Args:
        items: what the marks of held-out metrics are tested on. shown: these metrics alone, in this order.
        verdict: on the task, which decides the marks of its headline. rows: how many are drawn, at most.
    """
    # what is measured tells the kind of policy: records of plugins name models that nobody knows
    language = any(g.known(m) for g in groups for m in LANGUAGE)
    forget = all(g.unlearns for g in groups)
    quality = UNLEARNING if forget else TEXT if language else WORLD
    name = f"{clean(task)}{' (unlearning)' if forget else ''}"
    drawn = groups[:rows]
    who = labels([g.label for g in drawn])
    lr = Column("lr", [_rate(g.records[0].lr) for g in drawn])
    runs = Column("runs", [statuses(g.status) for g in drawn], left=True)
    metrics = _columns(shown or [*quality, *_of_plugins(groups)], groups, items, rows)
    if verdict is not None and (by := verdict.headline.metric) in metrics:
        # one rule decides both: a mark that another correction gives could contradict the word
        metrics[str(by)] = replace(metrics[str(by)], best=verdict.marked(groups)[:rows])
    columns = _with_longer([who, lr, runs, *metrics.values()], metrics, groups)
    notes = []
    if forget:
        notes.append(
            "In nats, changes since step 0. Forgetting is read against retaining, so that neither has a best."
        )
    elif len(columns[0].cells) > len(drawn):
        notes.append(
            f"{LONGER}: the rule that prefers the completion with more tokens, on the same pairs; no "
            "algorithm."
        )
    if "regret" in metrics and not all(g.known("regret") for g in groups if g.counted):
        notes.append("regret: – where an algorithm names no strength of its KL, and so no optimum.")
    # both speak of algorithm and task alone, which many records have in common
    apart = {(id(r.algorithm), id(r.task)): r.raw for g in groups for r in g.records}
    told = dict.fromkeys(remark for r in apart.values() for remark in (*remarks(r), *cannot_see(r)))
    notes += [f"{clean(remark)}." for remark in told]
    title = ": ".join(filter(None, (name, ", ".join(_facts(groups)))))
    if any(any(column.best) for column in columns):
        notes.append(MARKED)
    left_out = len(groups) - len(drawn)
    tables = [Table(title, columns, " ".join(notes), aside=[len(drawn)], left_out=left_out)]
    if language and not shown:
        costs = _columns(COST, groups, items, rows)
        tables.append(Table(f"{clean(task)}: cost", [who, *costs.values()], left_out=left_out))
    return tables


def _of_plugins(groups: Sequence[SeedGroup]) -> list[str]:
    """The metrics that plugins measured, each followed by itself on held-out pairs."""
    every = {id(r.metric_definitions): r.metric_definitions for g in groups for r in g.records}
    named = dict.fromkeys(name for definitions in every.values() for name in definitions)
    return [prefix + name for name in named for prefix in ("", "heldout_")]


def _columns(
    names: Sequence[str], groups: Sequence[SeedGroup], items: ItemReader, rows: int | None
) -> dict[str, Column]:
    """Those of the metrics that some run has."""
    known = [m for m in names if any(g.known(m) for g in groups)]
    return {m: metric_column(broken_header(m), m, groups, items, rows) for m in known}


def _with_longer(
    shown: Sequence[Column], metrics: dict[str, Column], groups: Sequence[SeedGroup]
) -> list[Column]:
    """The columns with the row of the always-longer rule below, where its accuracy is known; it never
    competes.
    """
    cells = {id(column): mean_pm(rule) for m, column in metrics.items() if (rule := longer(groups, m))}
    if not cells:
        return list(shown)
    cells[id(shown[0])] = LONGER  # its name stands in the first column
    return [
        replace(
            c,
            cells=[*c.cells, cells.get(id(c), "" if c.left else ABSENT)],
            best=[*c.best, False] if c.best else (),
        )
        for c in shown
    ]


def _facts(groups: Sequence[SeedGroup]) -> list[str]:
    """What all runs of a task have in common."""
    records = [r for g in groups for r in g.records]
    facts = []
    optimizers = {r.train.get("optimizer") for r in records}
    if len(optimizers) == 1 and optimizers != {None}:  # what was trained elsewhere says neither
        facts.append(clean(str(optimizers.pop())))
    steps = {r.task.budget.get("steps") for r in records}
    if len(steps) == 1 and steps != {None}:
        facts.append(f"{steps.pop()} steps")
    seeds = {len(g.records) for g in groups}
    if len(seeds) == 1:
        n = seeds.pop()
        facts.append(
            f"{counted(n, 'seed')}, " + ("mean ± half its 95 % interval" if n > 1 else "no interval")
        )
    return facts


def _rate(value: object) -> str:
    return number(value) if isinstance(value, int | float) else ABSENT
