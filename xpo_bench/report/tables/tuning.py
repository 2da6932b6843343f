"""Default and tuned side by side, and how much an algorithm depends on its configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number
from xpo_bench.report.records import COUNTED, Record
from xpo_bench.report.run_file import Spread, Study, Tuning
from xpo_bench.report.studies import over_studies
from xpo_bench.report.table import Column, Table, broken_header, labels
from xpo_bench.report.tables.columns import preferred
from xpo_bench.statistics import Estimate, estimate

REPORTED = ("frontier_gap", "heldout_reward_accuracy", "kl", "forget_logp", "retain_logp")
"""Metrics shown for both, those of them that some run has."""
ONE = (
    "From one study the interval of the tuned row leaves out what another draw of trials would have chosen; "
    "--studies S repeats the study."
)
SEVERAL = (
    "Tuned is the mean over {studies} studies, each with trials and seeds of its own, and the run's seeds. "
    "Its interval adds the variance of the studies' means to that of the seeds' means (Student's t, degrees "
    "of freedom of the larger), so that what a study happens to choose is in it."
)


def tuning_tables(tuning: Sequence[Tuning], records: Sequence[Record]) -> list[Table]:
    """Tables per task: reported metrics at the default and at the chosen trial, the spread over the studies
    where there are several, and the spread over the trials.

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
        if max(len(_studies(t)) for t in of_task) > 1:
            out.append(_spread_over_studies(of_task, by_key))
        if searched := [t for t in of_task if t["spread"]]:
            out.append(_sensitivity(searched))
    return out


def _beside(tuning: Sequence[Tuning], by_key: Mapping[str, Record]) -> Table:
    first = tuning[0]
    columns = [labels([t["algorithm"] for t in tuning])]
    for metric in REPORTED:
        sides = {
            "default": [_of(t["keys"]["default"], by_key, metric) for t in tuning],
            "tuned": [over_studies(_matrix(t, by_key, metric)) for t in tuning],
        }
        if not any(e for values in sides.values() for e in values):
            continue
        for side, values in sides.items():
            header = f"{broken_header(metric)}\n{side}"
            columns.append(Column(header, [mean_pm(e) for e in values], better=preferred(metric)))
    studies = max(len(_studies(t)) for t in tuning)
    columns.append(Column("chosen\ntrial", [_chosen(t) for t in tuning], left=True, text=studies > 1))
    count = max(len(t["trials"]) for t in tuning)
    searched = f": {counted(count, 'trial')} of {counted(len(first['seeds']), 'seed')}" if count else ""
    searched += f" in each of {studies} studies" if count and studies > 1 else ""
    notes = [
        f"Trials are chosen by {clean(first['select'])} on a validation split of the training rows; trial 0 "
        "is the default, and the earliest of equals is taken. Default and tuned are trained on all training "
        "rows, at the same seeds.",
        SEVERAL.format(studies=studies) if studies > 1 else ONE,
    ]
    notes += [f"{clean(t['algorithm'])}: default only: {clean(t['reason'])}." for t in tuning if t["reason"]]
    return Table(f"Default and tuned: {_where(first)}{searched}", columns, " ".join(notes))


def _spread_over_studies(tuning: Sequence[Tuning], by_key: Mapping[str, Record]) -> Table:
    """How much of a tuned result is the luck of its search: the studies' means, and how they deviate."""
    columns = [
        labels([t["algorithm"] for t in tuning]),
        Column("configurations\nchosen", [str(len({_trial(s) for s in _studies(t)})) for t in tuning]),
    ]
    for metric in REPORTED:
        found = [_means(_matrix(t, by_key, metric)) for t in tuning]
        if not any(means for means, _ in found):
            continue
        header = f"{broken_header(metric)}\n"
        columns += [
            Column(f"{header}of the studies", [_range(means) for means, _ in found]),
            Column(f"{header}sd of studies", [number(_deviation(means)) for means, _ in found]),
            Column(f"{header}sd of seeds", [number(_deviation(seeds)) for _, seeds in found]),
        ]
    note = (
        "Of each study the mean over the seeds, lowest to highest, and the standard deviation of these "
        "means; beside it that of each seed's mean over the studies. Where the first is as large as the "
        "second, the draw of trials matters as much as the seed."
    )
    return Table(f"Spread over the studies: {_where(tuning[0])}", columns, note)


def _means(values: Sequence[Sequence[float | None]]) -> tuple[list[float], list[float]]:
    """The mean of every study and of every seed, over the seeds that all studies know."""
    columns = [
        known
        for column in zip(*values, strict=True)
        if len(known := [v for v in column if v is not None]) == len(column)
    ]
    if not columns:
        return [], []
    return [fmean(row) for row in zip(*columns, strict=True)], [fmean(column) for column in columns]


def _range(means: Sequence[float]) -> str:
    return f"{number(min(means))} to {number(max(means))}" if means else ABSENT


def _deviation(means: Sequence[float]) -> float | None:
    return stdev(means) if len(means) > 1 else None


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


def _studies(t: Tuning) -> Sequence[Study]:
    """The studies, of which a run of an earlier version has one."""
    return t.get("studies") or [
        {
            "seeds": t["seeds"],
            "trials": t["trials"],
            "chosen": t["chosen"],
            "changes": t["changes"],
            "reason": t["reason"],
            "keys": t["keys"]["tuned"],
        }
    ]


def _matrix(t: Tuning, by_key: Mapping[str, Record], metric: str) -> list[list[float | None]]:
    """A metric of what was chosen, one row per study and one column per seed."""

    def value(key: str) -> float | None:
        record = by_key.get(key)
        return record.metrics.get(metric) if record and record.status in COUNTED else None

    return [[value(key) for key in study["keys"]] for study in _studies(t)]


def _chosen(t: Tuning) -> str:
    """What was chosen, each configuration once with the number of studies that chose it."""
    times = Counter(_trial(study) for study in _studies(t))
    alone = len(times) == 1
    return "; ".join(trial if alone or n == 1 else f"{trial} ({n} times)" for trial, n in times.items())


def _trial(study: Study) -> str:
    changes = ", ".join(f"{clean(k.removeprefix('train.'))}={number(v)}" for k, v in study["changes"].items())
    return f"{study['chosen']}: {changes}" if changes else "0: default"
