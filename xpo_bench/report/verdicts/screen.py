"""The first screen: one number and one word per algorithm and task, and the sentences beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from xpo_bench.metrics.attained import ATTAINED, BUDGETS
from xpo_bench.report.format import ABSENT, clean, counted, listed, mean_pm, number
from xpo_bench.report.table import Column, Table, labels, row_label
from xpo_bench.report.verdicts.headline import BUDGET, KNOWN
from xpo_bench.report.verdicts.task import STATES, Row, TaskVerdict, stopping
from xpo_bench.statistics import Estimate

BESIDE = 6
"""Algorithms up to which they stand side by side, tasks below one another."""
NAMED = 3
"""Algorithms of one kind that get their numbers in a sentence."""
assert BUDGET in BUDGETS


@dataclass(frozen=True, eq=False)
class Screen:
    """The verdicts on all tasks of a run, as one table and a few sentences.

    Args:
        rows: of the table that are drawn, at most; all by default.
    """

    verdicts: Sequence[TaskVerdict]
    rows: int | None = None

    @cached_property
    def order(self) -> list[str]:
        """Labels of the algorithms, those that are best on most tasks first, then by their places."""
        score: dict[str, float] = {}
        places: dict[str, list[float]] = {}
        for v in self.verdicts:
            stops = v.headline.metric is None
            best = {r for r in v.rows if (r.state == STATES["converged"] if stops else r.said == "best")}
            for place, row in enumerate(v.rows):
                name = row.group.label
                # many of which none is better say less of each: they share one point
                score[name] = score.get(name, 0.0) + (1 / len(best) if row in best else 0.0)
                places.setdefault(name, []).append(place / len(v.rows))
        return sorted(score, key=lambda name: (-score[name], fmean(places[name])))

    def title(self) -> str:
        """What was asked, of whom, on how much."""
        seeds = {len(row.group.records) for v in self.verdicts for row in v.rows}
        facts = [counted(len(self.verdicts), "task")]
        if len(seeds) == 1:
            facts.append(counted(seeds.pop(), "seed"))
        if any(v.headline.metric and v.headline.metric.endswith(f"_{BUDGET:g}") for v in self.verdicts):
            facts.append(f"within {BUDGET:g} nat of KL")
        return f"Which algorithm? {', '.join(facts)}"

    def table(self) -> Table:
        """One cell per algorithm and task."""
        wide = self._tasks_as_rows() if len(self.order) <= BESIDE else None
        long = self._algorithms_as_rows()
        note = self._note()
        if wide is None:
            return Table(self.title(), long, note, left_out=len(self.order) - len(long[0].cells))
        return Table(self.title(), wide, note, narrow=[Table(self.title(), c, note) for c in (wide, long)])

    def _tasks_as_rows(self) -> list[Column]:
        about = [f"{v.headline.about}" for v in self.verdicts]
        columns = [labels([v.task for v in self.verdicts], "task"), Column("data", about, left=True)]
        columns += [
            Column(row_label(name), [cell(v, name) for v in self.verdicts], left=True) for name in self.order
        ]
        return [*columns, Column("unit", [v.headline.unit for v in self.verdicts], left=True)]

    def _algorithms_as_rows(self) -> list[Column]:
        return [
            labels(self.order[: self.rows]),
            *(
                Column(
                    f"{clean(v.task)}\n{v.headline.unit if v.headline.metric is None else v.headline.about}",
                    [cell(v, name) for name in self.order[: self.rows]],
                    left=True,
                )
                for v in self.verdicts
            ),
        ]

    def _note(self) -> str:
        said = {row.said for v in self.verdicts for row in v.rows}
        margins = {
            v.headline.metric: f"{v.headline.metric} {m:.2g}" for v in self.verdicts if (m := _margin(v))
        }
        parts = [
            "best: the best mean, and what is equivalent to it" if "best" in said else "",
            "?: cannot be told from the best" if "?" in said else "",
            "worse: than the best, by paired tests corrected for all pairs of the task"
            if "worse" in said
            else "",
            f"margins of equivalence: {', '.join(margins.values())}" if margins else "",
        ]
        return "; ".join(filter(None, parts)) + "." if any(parts) else ""

    # ---------------------------------------------------------------- sentences

    def sentences(self) -> list[str]:
        """What may be concluded, a sentence per task, and what would decide where nothing can be."""
        out = []
        for v in self.verdicts:
            told = _stopping(v) if v.headline.metric is None else _ranking(v)
            out += [f"{clean(v.task)} ({v.headline.about}): {told}"] if told else []
            out += _not_moved(v)
        return out


def cell(v: TaskVerdict, name: str) -> str:
    """`.97 best`, `collapses`, or – of an algorithm that did not run there."""
    row = v.row(name)
    if row is None:
        return ABSENT
    if row.mean is None:
        return row.state or ABSENT
    # the headlines are fractions; by --metric anything may stand there, a gap of 2.2e-5 among it
    told = fraction(row.mean.mean) if v.headline in KNOWN else number(row.mean.mean)
    return f"{told} {row.said}".rstrip()


def fraction(value: float) -> str:
    """Two decimals without the leading zero for fractions, else three digits."""
    if abs(value) >= 10:
        return number(value)
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def _margin(v: TaskVerdict) -> float:
    first = v.rows[0].mean if v.rows else None
    return v.headline.margin(first.mean) if first else 0.0


def _ranking(v: TaskVerdict) -> str:
    """Who is best, who cannot be told from it and what would decide, who is worse."""
    if v.reason:
        return f"no verdict: {v.reason}."
    if len(v.ranked) < 2:
        return ""
    best, *others = v.ranked
    equal, unclear, worse = ([r for r in others if r.said == said] for said in ("best", "?", "worse"))
    parts = [f"best is {clean(best.group.label)} ({mean_pm(best.mean)} {v.headline.unit})"]
    parts += [f"equivalent within {_margin(v):.2g}: {_named(equal)}"] if equal else []
    parts += [f"cannot be told from it: {_named(unclear)}"] if unclear else []
    parts += [f"worse: {_named(worse)}"] if worse else []
    parts += [_elsewhere(other) for other in v.elsewhere]
    return "; ".join(parts) + "."


def _elsewhere(v: TaskVerdict) -> str:
    """`within 3 nats best is dpo (0.99±0.01)`: where another budget of KL has another best one."""
    budget = next(b for b, name in ATTAINED.items() if name == v.headline.metric)
    within = f"within {budget:g} {'nat' if budget == 1 else 'nats'}"
    return f"{within} best is {clean(v.ranked[0].group.label)} ({mean_pm(v.ranked[0].mean)})"


def _named(rows: Sequence[Row]) -> str:
    """The first of the rows with their differences from the best, the rest by name."""
    return listed([_told(r) if i < NAMED else clean(r.group.label) for i, r in enumerate(rows)])


def _told(row: Row) -> str:
    """`kto (-0.26±0.03)`, with what would decide where nothing is decided."""
    if row.behind is None:
        return clean(row.group.label)
    facts = [mean_pm(Estimate(row.behind.mean, row.behind.half, row.behind.runs)), _would_decide(row)]
    return f"{clean(row.group.label)} ({', '.join(filter(None, facts))})"


def _would_decide(row: Row) -> str:
    """How many more seeds or held-out clusters would decide."""
    verdict, behind = row.verdict, row.behind
    if row.said != "?" or verdict is None or behind is None:
        return ""
    if verdict.runs:
        return f"{counted(verdict.runs - behind.runs, 'more seed')} would decide"
    if verdict.items:
        return f"{verdict.items - behind.items:,} more held-out prompts or people would decide"
    return ""


def _not_moved(v: TaskVerdict) -> list[str]:
    """Who stood still, and by how little it moved."""
    still = [r.group for r in v.rows if r.said == "not moved"]
    if not still:
        return []
    farthest = max(e.mean for g in still if (e := g.estimate("kl")))
    who, has = listed([clean(g.label) for g in still]), "has" if len(still) == 1 else "have"
    kl = f"KL {number(farthest)} nats{' at most' if len(still) > 1 else ''}"
    return [f"{clean(v.task)}: {who} {has} not moved ({kl}), and {has} no rank."]


def _stopping(v: TaskVerdict) -> str:
    """Under whom the rejected completions stop, and under whom they do not."""
    classes: dict[str, list[str]] = {}
    for row in v.rows:
        if row.state:
            classes.setdefault(row.state, []).append(clean(row.group.label))
    if not classes:
        return ""
    told = [f"{state} under {listed(classes[state])}" for state in sorted(classes, key=stopping)]
    return f"what was rejected {'; '.join(told)}."
