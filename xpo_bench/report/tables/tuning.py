"""Default and tuned side by side, and how much an algorithm depends on its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number
from xpo_bench.report.records import COUNTED, Record, Spread, Tuning
from xpo_bench.report.table import Column, Table, broken_header, labels
from xpo_bench.report.tables.columns import preferred
from xpo_bench.statistics import Estimate, estimate

REPORTED = ("frontier_gap", "heldout_reward_accuracy", "kl", "forget_logp", "retain_logp")
"""Metrics shown for both, those of them that some run has."""


def tuning_tables(tuning: Sequence[Tuning], records: Sequence[Record]) -> list[Table]:
    """Two tables per task: reported metrics at the default and at the chosen trial, and the spread over the
    trials.

    Args:
        tuning: the documents of `runner.search.tuned.find`. records: all of the run.
    """
    # default and tuned may be one and the same cell: keys find it in both roles
    by_key = {r.key: r for r in records}
    gathered: dict[tuple[str, str | None, str], list[Tuning]] = {}
    for t in tuning:
        gathered.setdefault((t["task"], t.get("experiment"), t["select"]), []).append(t)
    out = []
    for of_task in gathered.values():
        out.append(_beside(of_task, by_key))
        if searched := [t for t in of_task if t["spread"]]:
            out.append(_sensitivity(searched))
    return out


def _beside(tuning: Sequence[Tuning], by_key: Mapping[str, Record]) -> Table:
    first = tuning[0]
    columns = [labels([t["algorithm"] for t in tuning])]
    for metric in REPORTED:
        sides = {
            "default": [_of(t["keys"]["default"], by_key, metric) for t in tuning],
            "tuned": [_of(t["keys"]["tuned"], by_key, metric) for t in tuning],
        }
        if not any(e for values in sides.values() for e in values):
            continue
        for side, values in sides.items():
            means = [e.mean if e else None for e in values]
            header = f"{broken_header(metric)}\n{side}"
            columns.append(Column(header, [mean_pm(e) for e in values], means, preferred(metric)))
    columns.append(Column("chosen\ntrial", [_trial(t) for t in tuning], left=True))
    count = max(len(t["trials"]) for t in tuning)
    searched = f": {counted(count, 'trial')} of {counted(len(first['seeds']), 'seed')}" if count else ""
    notes = [
        f"Trials are chosen by {clean(first['select'])} on a validation split of the training rows; trial 0 "
        "is the default, and the earliest of equals is taken. Default and tuned are trained on all training "
        "rows, at the same seeds."
    ]
    notes += [f"{clean(t['algorithm'])}: default only: {clean(t['reason'])}." for t in tuning if t["reason"]]
    return Table(f"Default and tuned: {_where(first)}{searched}", columns, " ".join(notes))


def _sensitivity(tuning: Sequence[Tuning]) -> Table:
    columns = [labels([t["algorithm"] for t in tuning])]
    for metric in dict.fromkeys(m for t in tuning for m in t["spread"]):
        spreads = [t["spread"].get(metric) for t in tuning]
        header = f"{broken_header(metric)}\n"
        columns += [
            Column(f"{header}median [quartiles]", [_middle(s) if s else ABSENT for s in spreads]),
            Column(f"{header}worst to best", [_ends(s) if s else ABSENT for s in spreads]),
        ]
    failed = [max(s["failed"] for s in t["spread"].values()) for t in tuning]
    if any(failed):
        columns.append(Column("trials\nwithout", [str(n) for n in failed]))
    note = (
        "Over the trials, each the mean of its seeds; heldout_ metrics are those of the validation split. Of "
        "metrics with no preferred direction the ends are the least and the greatest."
    )
    return Table(f"Sensitivity over the trials: {_where(tuning[0])}", columns, note)


def _middle(s: Spread) -> str:
    return f"{number(s['median'])} [{number(s['q1'])}, {number(s['q3'])}]"


def _ends(s: Spread) -> str:
    return f"{number(s['worst'])} to {number(s['best'])}"


def _where(t: Tuning) -> str:
    experiment = t.get("experiment")
    return clean(t["task"]) + (f", {clean(experiment)}" if experiment else "")


def _of(keys: Sequence[str], by_key: Mapping[str, Record], metric: str) -> Estimate | None:
    cells = [by_key[k] for k in keys if k in by_key and by_key[k].status in COUNTED]
    return estimate(r.metrics.get(metric) for r in cells)


def _trial(t: Tuning) -> str:
    changes = ", ".join(f"{clean(k.removeprefix('train.'))}={number(v)}" for k, v in t["changes"].items())
    return f"{t['chosen']}: {changes}" if changes else "0: default"
