"""How far the rejected completion of every pair moved over the last fifth of a run, kept while it trains."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, Mask, four_fifths
from xpo_bench.metrics.ties import tolerance


class PairDrift:
    """Follows the rejected log-ratios of all pairs of R runs.

    Nobody knows beforehand where a run ends, since it may diverge. So the change over the last fifth of the
    steps made so far is brought up to date at every evaluation, and stays at that of a run's last finite one.
    Of the log-ratios only those that a later evaluation may look back on are kept: the last at or before four
    fifths of the steps, and those after it.

    Attributes:
        change: as `History.pair_drift`. rounding: as `History.pair_rounding`. None before an evaluation.
    """

    def __init__(self) -> None:
        self.change: Array | None = None
        self.rounding: Array | None = None
        self._kept: list[tuple[int, Array]] = []
        self._before: tuple[Array | None, Array | None] = None, None

    def add(self, ev: Evaluation, recorded: Mask) -> None:
        """Take one evaluation. A second one at the same step takes the place of the first.

        Args:
            recorded: whether it counts for each run, shape (R,).
        """
        if self._kept and self._kept[-1][0] == ev.step:
            self._kept.pop()
            self.change, self.rounding = self._before
        self._before = self.change, self.rounding
        rows = ev.rejected_rows
        ratio: Array = np.where(rows, ev.rejected_logp, np.nan) - ev.rejected_ref
        self._kept.append((ev.step, ratio))
        early = [i for i, (step, _) in enumerate(self._kept) if step <= four_fifths(ev.step)]
        del self._kept[: early[-1] if early else 0]
        change = ratio - self._kept[0][1] if early else np.full_like(ratio, np.nan)
        # a change is a difference of two log-ratios, each known up to its own rounding
        rounding = 2 * tolerance(ev, ev.rejected_logp)
        self.change = _where(recorded, change, self.change)
        self.rounding = _where(recorded, rounding, self.rounding)


def _where(recorded: Mask, new: Array, old: Array | None) -> Array:
    """The new values of the runs that are recorded, the old ones of the others."""
    return np.where(recorded[:, None], new, np.nan if old is None else old)
