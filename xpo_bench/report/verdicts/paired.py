"""Paired differences of two rows of a table: over the seeds and the held-out items that both have."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from xpo_bench.metrics.throughput import MEASURED
from xpo_bench.report.items import CHOSEN_LONGER, CHOSEN_SHORTER, TIE, ItemReader, Outcomes
from xpo_bench.report.records import Record
from xpo_bench.report.runs import SeedGroup
from xpo_bench.verdicts.differences import ItemDifferences, PairedDifference, over_items, over_runs

ITEMS = {"heldout_reward_accuracy": "correct", "heldout_accuracy_lc": "correct"} | {
    f"heldout_accuracy_at_{budget}": f"correct_at_{budget}" for budget in ("0.3", "1", "3")
}
"""Metric -> the column of its items."""
NEVER_STRATIFIED = "heldout_reward_accuracy"


def difference(a: SeedGroup, b: SeedGroup, metric: str, items: ItemReader) -> PairedDifference | None:
    """a minus b on their common seeds; None where they have no number in common.

    Where the metric is a fraction of held-out items that were stored, items are sampled as runs are.
    """
    own, other = ({r.seed: r for r in g.counted if r.metrics.get(metric) is not None} for g in (a, b))
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    runs: list[Hashable] = [(run_identity(own[s]), run_identity(other[s])) for s in seeds]
    if metric in ITEMS:
        by_item = [_items(items(own[s].key), items(other[s].key), metric) for s in seeds]
        known = [found for found in by_item if found is not None]
        if len(known) == len(seeds):
            return over_items(known, runs)
        if metric.startswith("heldout_"):
            return _without_items([(own[s], other[s]) for s in seeds], metric, runs)
    return over_runs([_value(own[s], metric) - _value(other[s], metric) for s in seeds], runs)


Rule = Callable[[Outcomes], NDArray[np.float64]]
"""A rule that needs no training: what it makes of every item, 0, ½ or 1."""


def coin(outcomes: Outcomes) -> NDArray[np.float64]:
    """Right on half of everything."""
    return np.full(len(outcomes.item), 0.5)


def always_longer(outcomes: Outcomes) -> NDArray[np.float64]:
    """Prefers the completion with more tokens."""
    right = np.full(len(outcomes.item), 0.5)
    right[outcomes.stratum == CHOSEN_LONGER], right[outcomes.stratum == CHOSEN_SHORTER] = 1.0, 0.0
    return right


def against_rule(g: SeedGroup, rule: Rule, items: ItemReader) -> PairedDifference | None:
    """Held-out reward accuracy minus that of a rule on the same items; None where items were not stored."""
    found = [(r, o) for r in g.counted if (o := items(r.key)) is not None]
    if not found or len(found) < len(g.counted):
        return None
    seeds = []
    for _, outcomes in found:
        gain = outcomes.correct["correct"] - rule(outcomes)
        kept = np.flatnonzero(np.isfinite(gain))
        clusters = [outcomes.cluster[i] for i in kept.tolist()]
        seeds.append(ItemDifferences(clusters, gain[kept], np.zeros(len(kept), dtype=np.int64)))
    return over_items(seeds, [run_identity(r) for r, _ in found])


def _value(record: Record, metric: str) -> float:
    value = record.metrics[metric]
    assert value is not None
    return value


def run_identity(record: Record) -> Hashable:
    """What a run came to, apart from what a clock says: two that agree in it differ in nothing random."""
    return hash(tuple(sorted((n, v) for n, v in record.metrics.items() if n not in MEASURED)))


def _items(a: Outcomes | None, b: Outcomes | None, metric: str) -> ItemDifferences | None:
    """The differences of the items that both have; None where there are none."""
    column = ITEMS[metric]
    if a is None or b is None or column not in a.correct or column not in b.correct:
        return None
    place = {item: i for i, item in enumerate(b.item)}
    pairs = [(i, place[item]) for i, item in enumerate(a.item) if item in place]
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    values = a.correct[column][left] - b.correct[column][right]
    kept = np.isfinite(values)
    if not kept.any():
        return None
    stratum = a.stratum[left][kept]
    # length-controlled where pairs of both kinds are held out; ties in length then belong to neither
    if metric == NEVER_STRATIFIED or len(set(stratum.tolist()) - {TIE}) < 2:
        stratum = np.zeros(int(kept.sum()), dtype=np.int64)
        used = np.ones(len(stratum), dtype=bool)
    else:
        used = stratum != TIE
    clusters = [a.cluster[i] for i, keep in zip(left, kept, strict=True) if keep]
    return ItemDifferences(
        [c for c, keep in zip(clusters, used, strict=True) if keep], values[kept][used], stratum[used]
    )


def _without_items(
    pairs: Sequence[tuple[Record, Record]], metric: str, runs: Sequence[Hashable]
) -> PairedDifference:
    """Of records that are older than items: the pairs' share of the variance from their number alone."""
    over = over_runs([_value(a, metric) - _value(b, metric) for a, b in pairs], runs)
    drawn_anew = len({a.task.data.fingerprint for a, _ in pairs}) == len(pairs) > 1
    if drawn_anew or over.zero:  # the spread over seeds shows that of the items, too
        return over
    held = min(heldout_pairs(r) for pair in pairs for r in pair)
    if not held:
        return PairedDifference(over.mean, None, 0.0, over.free, over.runs)
    # x(1 − x)/n of two binomials as if independent: they mostly agree on a pair, so that it is too much
    means = [np.mean([_value(pair[side], metric) for pair in pairs]) for side in (0, 1)]
    of_items = float(sum(x * (1 - x) for x in means)) / held
    return PairedDifference(over.mean, over.of_runs, of_items, min(over.free, held - 1.0), over.runs, held)


def heldout_pairs(record: Record) -> int:
    """How many held-out pairs were evaluated, 0 where the record does not say."""
    heldout = record.task.data.heldout or 0
    return min(heldout, record.task.budget.get("heldout_pairs") or heldout)
