"""The verdict on one task: its algorithms by their headline, and which cannot be told from the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from xpo_bench.metrics.attained import ATTAINED
from xpo_bench.metrics.registry import find
from xpo_bench.report.items import ItemReader
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.verdicts.headline import Headline, headline, moved
from xpo_bench.report.verdicts.paired import difference
from xpo_bench.statistics import Estimate
from xpo_bench.verdicts.best_set import Field, every_pair, stand
from xpo_bench.verdicts.differences import PairedDifference
from xpo_bench.verdicts.words import Verdict, judge

MOST = 40
"""Rows of a task up to which all are compared with all."""
STATES: Mapping[str, str] = {
    "converged": "stops",
    "falling": "keeps falling",
    "rising": "keeps rising",
    "collapsed": "collapses",
    "saturated": "saturates",
}
"""What a record says of the rejected completions, as the answer to "does it stop?"."""
Said = Literal["best", "worse", "?", "not moved", ""]
"""What the first screen says of a number: `best` of the best one and its equivalents, `worse` where it is
significantly worse than the best, `?` where neither can be told; nothing where it is not compared."""


@dataclass(frozen=True, eq=False)
class Row:
    """One algorithm on one task.

    Args:
        mean: of the headline over seeds; None where the task is judged by whether it stops, or there is none.
        state: whether its rejected completions stop; None where that is not known. ranks: the interval of its
            rank; None where it is not compared. behind: this algorithm minus the best one, with the verdict
            on that; None for the best one itself.
    """

    group: SeedGroup
    mean: Estimate | None = None
    said: Said = ""
    ranks: tuple[int, int] | None = None
    behind: PairedDifference | None = None
    verdict: Verdict | None = None

    @cached_property
    def state(self) -> str | None:
        """What most of its runs say of the rejected completions, with how many where not all do."""
        states = [r.notes.rejected_state for r in self.group.counted]
        known = Counter(STATES.get(s, s) for s in states if s is not None)
        if not known:
            return None
        word, count = known.most_common(1)[0]
        return word if count == len(states) else f"{word} {count}/{len(states)}"


@dataclass(frozen=True, eq=False)
class TaskVerdict:
    """What is concluded on one task.

    Args:
        rows: best first; those that are not compared last. reason: why none of them is, where none is.
        family: how many pairs were tested, of all with all. elsewhere: the verdicts within other budgets of
            KL that name a best one which is behind within this one.
    """

    task: str
    headline: Headline
    rows: Sequence[Row]
    reason: str = ""
    family: int = 0
    elsewhere: Sequence[TaskVerdict] = ()

    @property
    def ranked(self) -> list[Row]:
        """Rows that were compared."""
        return [row for row in self.rows if row.ranks is not None]

    @property
    def best(self) -> list[Row]:
        """The best one and those that cannot be separated from it."""
        return [row for row in self.ranked if row.said in ("best", "?")]

    def marked(self, groups: Sequence[SeedGroup | None]) -> list[bool]:
        """Which of the rows are marked in the column of the headline: the best set, where it holds at most
        half of those that were compared, since a mark has to tell some from others.
        """
        best = {row.group for row in self.best} if 2 * len(self.best) <= len(self.ranked) else set()
        return [g in best for g in groups]

    def row(self, label: str) -> Row | None:
        """The row of a label."""
        return self._by_label.get(label)

    @cached_property
    def _by_label(self) -> dict[str, Row]:
        return {row.group.label: row for row in reversed(self.rows)}  # the first of several


def stopping(state: str | None) -> float:
    """Where a row with this answer to "does it stop?" stands: those that stop first, unknown ones last."""
    words = [*STATES.values()]
    # "stops 2/3", where not all runs do, stands behind those of which all stop
    found = (i + (state != word) / 2 for i, word in enumerate(words) if state and state.startswith(word))
    return next(found, len(words))


def verdict_on(
    task: str, groups: Sequence[SeedGroup], items: ItemReader, metric: str | None = None
) -> TaskVerdict:
    """Compare the algorithms of a task, all with all, in one family.

    Args:
        groups: the rows of the task. metric: by what, in place of the headline.
    """
    by = headline(groups, metric)
    still = {g for g in groups if not moved(g)}
    found = _compared(task, groups, items, by, still)
    if metric is not None or by.metric not in ATTAINED.values():
        return found
    worse = {row.group for row in found.rows if row.said == "worse"}
    if not worse:
        return found
    # who is best may depend on how far from the reference one is willing to go
    others = [replace(by, metric=name) for name in ATTAINED.values() if name != by.metric]
    verdicts = [_compared(task, groups, items, other, still) for other in others if _known(groups, other)]
    return replace(found, elsewhere=[v for v in verdicts if v.ranked and v.ranked[0].group in worse])


def _known(groups: Sequence[SeedGroup], by: Headline) -> bool:
    return by.metric is not None and all(g.known(by.metric) for g in groups if g.counted)


def _compared(
    task: str, groups: Sequence[SeedGroup], items: ItemReader, by: Headline, still: Set[SeedGroup]
) -> TaskVerdict:
    """The verdict by one headline; `still` are the rows whose policies have not moved."""
    if by.metric is None:
        return TaskVerdict(task, by, sorted(map(Row, groups), key=lambda row: stopping(row.state)))
    means = {g: g.estimate(by.metric) for g in groups}
    sign = -1 if by.higher else 1
    order_by = {g: sign * e.mean for g, e in means.items() if e}
    able = [g for g in order_by if g not in still and set(g.status) == {"ok"}]
    compared = sorted(able, key=order_by.__getitem__)
    last = set(groups) - set(compared)
    rest = [Row(g, means[g], "not moved" if g in still else "") for g in groups if g in last]
    alone = [*(Row(g, means[g]) for g in compared), *rest]
    if len(compared) > MOST:
        few = f"{len(compared)} rows are too many to compare all with all; name some by --algos"
        return TaskVerdict(task, by, alone, few)
    if (unit := find(by.metric)) and unit.unit == "1/s" and any(g.shares_a_clock for g in compared):
        return TaskVerdict(task, by, alone, "the runs share one clock, whose speed is nobody's own")
    pairs = {
        (i, j): found
        for i, j in every_pair(len(compared))
        if (found := difference(compared[i], compared[j], by.metric, items)) is not None
    }
    if pairs and all(d.se is None for d in pairs.values()):
        return TaskVerdict(task, by, alone, _without_interval(compared, by.metric))
    if not pairs:
        apart = "no two algorithms have a seed in common" if len(compared) > 1 else ""
        return TaskVerdict(task, by, alone, apart)
    field = stand([-sign * order_by[g] for g in compared], pairs, by.higher)
    margin = by.margin(sign * order_by[compared[0]])
    ranked = [_row(g, means[g], i, field, pairs.get((0, i)), margin, by) for i, g in enumerate(compared)]
    return TaskVerdict(task, by, [*ranked, *rest], family=len(field.tests))


def _without_interval(groups: Sequence[SeedGroup], metric: str) -> str:
    """Why no difference has an interval."""
    if all(len(g.values(metric)) < 2 for g in groups):
        return "a single seed has no interval; --seeds 3 gives one"
    if metric.startswith("heldout_") and not any(r.task.data.heldout for g in groups for r in g.counted):
        return "the records do not say how many pairs were held out"
    return "no two algorithms have several seeds in common"


def _row(
    g: SeedGroup,
    mean: Estimate | None,
    place: int,
    field: Field,
    ahead: PairedDifference | None,
    margin: float,
    by: Headline,
) -> Row:
    """A row that was compared; `ahead` is the best one minus it, and the best one stands first."""
    standing = field.standings[place]
    if place == 0:
        return Row(g, mean, "best", standing.ranks)
    if ahead is None:
        return Row(g, mean, "?", standing.ranks)
    behind = ahead.reversed()
    found = judge(behind, field.corrected(0, place), margin, by.higher, len(field.tests))
    said: Said = "worse" if not standing.best else "?"
    if behind.zero or found.word == "equivalent":
        said = "best"
    return Row(g, mean, said, standing.ranks, behind, found)
