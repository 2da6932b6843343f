"""Every algorithm against one of them: paired differences, one family of tests, and a word for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xpo_bench.errors import UsageError, unknown
from xpo_bench.report.format import ABSENT, clean, counted, mean_pm, number
from xpo_bench.report.items import ItemReader
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.table import Column, Table, labels
from xpo_bench.report.verdicts.headline import Headline, headline, moved
from xpo_bench.report.verdicts.paired import difference
from xpo_bench.statistics import Estimate, estimate, holm, improvement
from xpo_bench.verdicts.best_set import moderate
from xpo_bench.verdicts.differences import PairedDifference
from xpo_bench.verdicts.words import Verdict, judge

PREFERRED = "dpo"
"""The baseline where none is named and it ran."""
UNASKED = 200
"""Rows up to which all are tested against a baseline that nobody named."""


@dataclass(frozen=True)
class Against:
    """One algorithm against the baseline on one task.

    Args:
        difference: its values minus the baseline's on common seeds and items. margin: differences up to it
            are none. verdict: with p after Holm's correction, where it was tested. improvement: probability
            that a seed of it is better than a seed of the baseline, ties ½.
    """

    label: str
    task: str
    metric: str
    own: Estimate
    difference: PairedDifference
    margin: float
    verdict: Verdict
    improvement: float


def against(
    groups: Sequence[SeedGroup], baseline: str, items: ItemReader, metric: str | None = None
) -> list[Against]:
    """Every other group against the baseline's on the same task.

    The family is every algorithm on every task, by one metric each; differences that are 0 in every run and
    item could not come out otherwise and are not in it.

    Args:
        baseline: a label of the groups, or the name of an algorithm that has one configuration.
        metric: one with a preferred direction; the headline of each task by default.

    Raises:
        UsageError: no such algorithm, or several configurations of it, or no metric to compare by.
    """
    base_label = label_of(groups, baseline)
    rows: list[tuple[Against, Headline]] = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task]
        base = next((g for g in here if g.label == base_label), None)
        by = headline(here, metric)
        if base is None or by.metric is None:
            continue
        rows += [(row, by) for g in here if g is not base and (row := _row(g, base, by, items))]
    return _judged(rows)


def _judged(rows: Sequence[tuple[Against, Headline]]) -> list[Against]:
    """The rows with their verdicts, corrected for all of them that could differ."""
    tested: dict[int, PairedDifference] = {}
    for task in dict.fromkeys(row.task for row, _ in rows):
        # the differences of one task share what they know of the spread, as its pairs do
        here = {(0, i): row.difference for i, (row, _) in enumerate(rows) if row.task == task}
        able = {pair: d for pair, d in here.items() if not d.zero}
        tested |= {i: d for (_, i), d in moderate(able, len(here) + 1).items()}
    p_values = {i: p for i, d in sorted(tested.items()) if (p := d.p) is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [
        replace(row, verdict=judge(row.difference, corrected.get(i), row.margin, by.higher, len(corrected)))
        for i, (row, by) in enumerate(rows)
    ]


def label_of(groups: Sequence[SeedGroup], baseline: str) -> str:
    """The label of a baseline that is named by its label or by its algorithm.

    Raises:
        UsageError: no such algorithm, or several configurations of it.
    """
    known = list(dict.fromkeys(g.label for g in groups))
    matching = [label for label in known if label == baseline] or [
        label for label in known if label.split(" ")[0] == baseline
    ]
    if not matching:
        raise UsageError(unknown("algorithm of this run", baseline, known))
    if len(matching) > 1:
        raise UsageError(
            f"--baseline {baseline}: has {len(matching)} configurations here; name one: "
            f"{', '.join(map(repr, matching))}"
        )
    return matching[0]


def default_baseline(groups: Sequence[SeedGroup]) -> str | None:
    """The baseline where none is named: dpo, or the first; None of one row, and of more than `UNASKED`."""
    known = list(dict.fromkeys(g.label for g in groups))
    if not 2 <= len(known) <= UNASKED:
        return None
    return next((label for label in known if label.split(" ")[0] == PREFERRED), known[0])


def _row(g: SeedGroup, base: SeedGroup, by: Headline, items: ItemReader) -> Against | None:
    metric = by.metric
    assert metric is not None
    # a seed draws the same data and initial policy for both: what it decides cancels in the difference
    found = difference(g, base, metric, items)
    own, others = ([v for v in group.values(metric).values() if v is not None] for group in (g, base))
    mean, base_mean = estimate(own), estimate(others)
    if found is None or mean is None or base_mean is None or not (moved(g) and moved(base)):
        return None
    # turned so that more is better: P(a seed of it > a seed of the baseline)
    sign = 1 if by.higher else -1
    wins = improvement([sign * v for v in own], [sign * v for v in others])
    margin = by.margin(base_mean.mean)
    return Against(g.label, g.task, metric, mean, found, margin, Verdict("cannot tell", None), wins)


def versus_table(rows: Sequence[Against], baseline: str) -> Table:
    """The rows of `against`, with how many comparisons were made."""
    columns = [
        labels([row.label for row in rows]),
        labels([row.task for row in rows], "task"),
        Column("metric", [row.metric for row in rows], left=True),
        Column("mean", [mean_pm(row.own) for row in rows]),
        Column("difference", [mean_pm(_estimate(row.difference)) for row in rows]),
        Column("p (Holm)", [number(row.verdict.corrected, 2) for row in rows]),
        Column("verdict", [row.verdict.word for row in rows], left=True),
        Column("would\ndecide", [would_decide(row.verdict) for row in rows]),
        Column("better\nthan it", [f"{row.improvement:.0%}" for row in rows]),
    ]
    tested = sum(row.verdict.corrected is not None for row in rows)
    margins = {row.metric: f"{row.metric} {row.margin:.3g}" for row in rows if row.margin}
    note = (
        "Differences are paired over common seeds and held-out items, ± half their 95 % interval; p after "
        f"Holm's correction for {counted(tested, 'comparison')}. Equivalent: within the margin by two "
        f"one-sided tests ({', '.join(margins.values()) or 'no margin declared'}). Would decide: seeds, or "
        "clusters of items, that would tell with 80 % power at the spread seen. Better than it: how often a "
        "seed of the algorithm beats a seed of the baseline, ties ½."
    )
    return Table(f"Against {clean(baseline)}", columns, note)


def would_decide(verdict: Verdict) -> str:
    """`12 seeds`, `92 items`, or –."""
    if verdict.runs:
        return counted(verdict.runs, "seed")
    return counted(verdict.items, "item") if verdict.items else ABSENT


def _estimate(d: PairedDifference) -> Estimate:
    return Estimate(d.mean, d.half, d.runs)


def documents(rows: Sequence[Against]) -> list[Mapping[str, object]]:
    """The rows for JSON."""
    out: list[Mapping[str, object]] = []
    for row in rows:
        d = row.difference
        out.append(
            {
                "label": row.label,
                "task": row.task,
                "metric": row.metric,
                "mean": row.own.mean,
                "difference": d.mean,
                "ci95": None if d.half is None else [d.mean - d.half, d.mean + d.half],
                "n": d.runs,
                "items": d.items,
                "p": d.p,
                "p_holm": row.verdict.corrected,
                "verdict": row.verdict.word,
                "margin": row.margin,
                "seeds_needed": row.verdict.runs,
                "items_needed": row.verdict.items,
                "improvement": row.improvement,
            }
        )
    return out
