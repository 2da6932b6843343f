"""How far the rejected completion of every pair moved over the last fifth of a run, kept while it trains."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, Mask, PairEnds, four_fifths
from xpo_bench.metrics.collapse import pairs_below
from xpo_bench.metrics.ties import tolerance


class PairDrift:
    """Follows the rejected log-ratios of all pairs of R runs.

    Nobody knows beforehand where a run ends, since it may diverge. So the change over the last fifth of the
    steps made so far is brought up to date at every evaluation, and stays at that of a run's last finite one.
    Of the log-ratios only those that a later evaluation may look back on are kept: the last at or before four
    fifths of the steps, and those after it.

    Attributes:
        ends: as `History.pairs`; None before an evaluation.
    """

    def __init__(self) -> None:
        self.ends: PairEnds | None = None
        self._before: PairEnds | None = None
        self._kept: list[tuple[int, Array]] = []

    def add(self, ev: Evaluation, recorded: Mask) -> None:
        """Take one evaluation. A second one at the same step takes the place of the first.

        Args:
            recorded: whether it counts for each run, shape (R,).
        """
        if self._kept and self._kept[-1][0] == ev.step:
            self._kept.pop()
            self.ends = self._before
        self._before = self.ends
        ratio: Array = np.where(ev.rejected_rows, ev.rejected_logp, np.nan) - ev.rejected_ref
        self._kept.append((ev.step, ratio))
        early = [i for i, (step, _) in enumerate(self._kept) if step <= four_fifths(ev.step)]
        del self._kept[: early[-1] if early else 0]
        drift = ratio - self._kept[0][1] if early else np.full_like(ratio, np.nan)
        # a change is a difference of two log-ratios, each known up to its own rounding
        now = PairEnds(drift, 2 * tolerance(ev, ev.rejected_logp), pairs_below(ev) > 0)
        self.ends = _merged(recorded[:, None], now, self.ends or _nothing(ratio.shape))


def _merged(recorded: Mask, now: PairEnds, before: PairEnds) -> PairEnds:
    """What is now of the runs that are recorded, and what was before of the others."""
    return PairEnds(
        np.where(recorded, now.drift, before.drift),
        np.where(recorded, now.rounding, before.rounding),
        np.where(recorded, now.below, before.below),
    )


def _nothing(shape: tuple[int, ...]) -> PairEnds:
    """The ends of runs that have no finite evaluation."""
    absent = np.full(shape, np.nan)
    return PairEnds(absent, absent, np.zeros(shape, bool))
