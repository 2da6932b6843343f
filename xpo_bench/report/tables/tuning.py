"""Default and tuned side by side, and how much an algorithm depends on its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpo_bench.metrics.registry import find
from xpo_bench.report.format import ABSENT, clean, mean_pm, number
from xpo_bench.report.runs import COUNTED, Record
from xpo_bench.report.table import Column, Table, broken_header, row_label
from xpo_bench.statistics import Estimate, estimate

REPORTED = ("frontier_gap", "heldout_reward_accuracy", "kl", "forget_logp", "retain_logp")
"""Metrics shown for both, those of them that some run has."""


def tuned_sheets(tuning: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> list[Table]:
    """Two tables per task: reported metrics at the default and at the chosen trial, and the spread over the
    trials.

    Args:
        tuning: the documents of `runner.tuned.find`. records: all of the run.
    """
    by_key = {str(r["key"]): r for r in records}
    places = dict.fromkeys((t["task"], t.get("experiment"), t["select"]) for t in tuning)
    out = []
    for place in places:
        here = [t for t in tuning if (t["task"], t.get("experiment"), t["select"]) == place]
        out.append(_beside(here, by_key))
        if searched := [t for t in here if t["spread"]]:
            out.append(_sensitivity(searched))
    return out


def _beside(tuning: Sequence[Mapping[str, Any]], by_key: Mapping[str, Record]) -> Table:
    first = tuning[0]
    select = str(first["select"])
    columns = [Column("", [row_label(t["algorithm"]) for t in tuning], left=True)]
    for metric in REPORTED:
        sides = {
            side: [_of(t["keys"][side], by_key, metric) for t in tuning] for side in ("default", "tuned")
        }
        if any(e for found in sides.values() for e in found):
            better = found.better if (found := find(metric.removeprefix("heldout_"))) else None
            for side, values in sides.items():
                means = [e.mean if e else None for e in values]
                columns.append(
                    Column(f"{broken_header(metric)}\n{side}", [mean_pm(e) for e in values], means, better)
                )
    columns.append(Column("chosen\ntrial", [_trial(t) for t in tuning], left=True))
    count = max(len(t["trials"]) for t in tuning)
    searched = (
        f": {count} trial{'s' * (count != 1)} of {len(first['seeds'])} seed{'s' * (len(first['seeds']) != 1)}"
        if count
        else ""
    )
    title = f"Default and tuned: {_where(first)}{searched}"
    note = f"Trials are chosen by {clean(select)} on a validation split of the training rows; trial 0 is the default, and the "
    note += (
        "earliest of equals is taken. Default and tuned are trained on all training rows, at the same seeds."
    )
    told = [f"{clean(t['algorithm'])}: default only: {clean(t['reason'])}." for t in tuning if t["reason"]]
    return Table(title, columns, " ".join([note, *told]))


def _sensitivity(tuning: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("", [row_label(t["algorithm"]) for t in tuning], left=True)]
    for metric in dict.fromkeys(m for t in tuning for m in t["spread"]):
        spreads = [t["spread"].get(metric) for t in tuning]
        header = f"{broken_header(metric)}\n"
        middle = [
            f"{number(s['median'])} [{number(s['q1'])}, {number(s['q3'])}]" if s else ABSENT for s in spreads
        ]
        ends = [f"{number(s['worst'])} to {number(s['best'])}" if s else ABSENT for s in spreads]
        columns += [Column(f"{header}median [quartiles]", middle), Column(f"{header}worst to best", ends)]
    failed = [max(s["failed"] for s in t["spread"].values()) for t in tuning]
    if any(failed):
        columns.append(Column("trials\nwithout", [str(n) for n in failed]))
    note = "Over the trials, each the mean of its seeds; heldout_ metrics are those of the validation split. Of metrics without a "
    note += "better direction the ends are the least and the greatest."
    return Table(f"Sensitivity over the trials: {_where(tuning[0])}", columns, note)


def _where(t: Mapping[str, Any]) -> str:
    return clean(t["task"]) + (f", {clean(t['experiment'])}" if t.get("experiment") else "")


def _of(keys: Sequence[str], by_key: Mapping[str, Record], metric: str) -> Estimate | None:
    there = [by_key[k] for k in keys if k in by_key and by_key[k]["status"] in COUNTED]
    return estimate(r["metrics"].get(metric) for r in there)


def _trial(t: Mapping[str, Any]) -> str:
    changes = ", ".join(
        f"{clean(str(k).removeprefix('train.'))}={number(v)}" for k, v in t["changes"].items()
    )
    return f"{t['chosen']}: {changes}" if changes else "0: default"
