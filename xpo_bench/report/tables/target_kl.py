"""What `--target-kl` came to: where each algorithm is held at the target, or passes it on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number
from xpo_bench.report.records import COUNTED, Checkpoint, Record
from xpo_bench.report.run_file import Stopped, Target
from xpo_bench.report.runs import MARK
from xpo_bench.report.table import Column, Table, broken_header, labels
from xpo_bench.report.tables.columns import preferred
from xpo_bench.statistics import Estimate, estimate

EARNED = ("gold_reward", "heldout_reward_accuracy", "reward_accuracy")
"""What is compared at equal KL, the first that the runs of a table have."""
NOTE = (
    "Held: the regulariser at whose value the final KL is the target, once it has converged. Checkpoint: "
    "where the run as it was asked for first passes the target, evaluated there; it had not converged. "
    f"Rows marked {MARK} in the other tables are checkpoints, of algorithms that no value holds there, or "
    "the end of runs that never pass it."
)


def target_tables(targets: Sequence[Target], records: Sequence[Record] = ()) -> list[Table]:
    """One row per algorithm and task: the value that holds it at the target, beside its checkpoint.

    Args:
        records: all of the run, for what was earned at either.
    """
    if not targets:
        return []
    by_key = {r.key: r for r in records}
    columns = [
        labels([_name(t) for t in targets]),
        labels([t["task"] for t in targets], "task"),
        Column("regulariser", [clean(t["field"] or ABSENT) for t in targets], left=True),
        Column("held at", [number(t["value"], 4) for t in targets]),
        Column("KL", [number(t["kl"]) if t["value"] is not None else ABSENT for t in targets]),
    ]
    if any(t.get("checkpoint") for t in targets):
        columns += [
            Column("checkpoint\nat", [_of(t, lambda s: number(s["value"], 4)) for t in targets]),
            Column("\nstep", [_of(t, _steps) for t in targets]),
            Column("\nKL", [_of(t, lambda s: number(s["kl"])) for t in targets]),
        ]
        columns += _earned(targets, records, by_key)
    note = NOTE if any(t.get("checkpoint") for t in targets) else ""
    return [Table("Regularisers at the target KL", columns, note)]


def _earned(
    targets: Sequence[Target], records: Sequence[Record], by_key: Mapping[str, Record]
) -> list[Column]:
    """The first metric that all runs of the table have, held and at the checkpoint."""
    held = [_held(t, records) for t in targets]
    stopped = [
        [by_key[k] for k in s["keys"] if k in by_key] if (s := t.get("checkpoint")) else [] for t in targets
    ]
    runs = [r for cells in (*held, *stopped) for r in cells if r.status in COUNTED]
    metric = next((m for m in EARNED if runs and all(r.metrics.get(m) is not None for r in runs)), None)
    if metric is None:
        return []
    columns = []
    for side, cells in (("held", held), ("checkpoint", stopped)):
        values = [_estimate(of_row, metric) for of_row in cells]
        if any(values):
            header = f"{broken_header(metric)}\n{side}"
            columns.append(Column(header, [mean_pm(e) for e in values], better=preferred(metric)))
    return columns


def _held(target: Target, records: Sequence[Record]) -> list[Record]:
    """The runs at the value that was found."""
    if target["value"] is None:
        return []
    return [
        r
        for r in records
        if r.algorithm.name == target["algorithm"]
        and r.task.name == target["task"]
        and r.checkpoint is None
        and str(r.experiment).startswith("kl=")
        and not r.searched
        and r.algorithm.config.get(str(target["field"])) == target["value"]
    ]


def _estimate(cells: Sequence[Record], metric: str) -> Estimate | None:
    return estimate(r.metrics.get(metric) for r in cells if r.status in COUNTED)


def _name(target: Target) -> str:
    """The algorithm, marked where its checkpoint is its row in the other tables."""
    marked = target["value"] is None and target.get("checkpoint")
    return f"{target['algorithm']} {MARK}" if marked else target["algorithm"]


def _of(target: Target, cell: Callable[[Stopped], str]) -> str:
    stopped = target.get("checkpoint")
    return cell(stopped) if stopped else ABSENT


def _steps(stopped: Stopped) -> str:
    """`740`, `731–752` where seeds differ, and whether the run passes the target at all."""
    low, high = min(stopped["steps"]), max(stopped["steps"])
    told = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return told if stopped["reached"] else f"{told}, not reached"


def target_lines(targets: Sequence[Target], records: Sequence[Record] = ()) -> list[str]:
    """What there is to know of the search for an algorithm, and where its checkpoint is its row."""
    lines = [f"{t['algorithm']} on {t['task']}: {t['reason']}" for t in targets if t["reason"]]
    by_key = {r.key: r for r in records}
    for t in targets:
        if t["value"] is None and (stopped := t.get("checkpoint")):
            known = [c for k in stopped["keys"] if k in by_key and (c := by_key[k].checkpoint)]
            lines.append(f"{_name(t)} on {t['task']}: {_checkpoint(t, stopped, known)}")
    return lines


def _checkpoint(target: Target, stopped: Stopped, known: Sequence[Checkpoint]) -> str:
    of, steps = f"of {stopped['of']:,}", stopped["steps"]
    at = (
        f", at {clean(target['field'])} {number(stopped['value'], 4)}" if stopped["value"] is not None else ""
    )
    if stopped["reached"]:
        step = f"step {_steps(stopped)} {of}" if len(set(steps)) == 1 else f"steps {_steps(stopped)} {of}"
        return f"checkpoint at KL {number(stopped['kl'])}, {step}{at}; had not converged"
    passed = sum(c.reached for c in known)
    left = len(steps) - passed
    verb = "passes" if left == 1 else "pass"
    never = f"{counted(left, 'seed')} never {verb} it" if passed else "never passes the target"
    if known and (stopped["kl"] or 0) > known[0].target_kl and not passed:
        never = "a closed form, which is beyond the target from its first step on"
    return f"{never}; KL {number(stopped['kl'])} at its end, step {max(steps):,} {of}{at}"
