"""A mean over studies and seeds, with an interval that has the spread of both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpo_bench.statistics import Estimate, estimate, quantile


def over_studies(values: Sequence[Sequence[float | None]]) -> Estimate | None:
    """Mean and 95 % interval over studies and the seeds that all of them are run at.

    With y(s, j) = μ + a(s) + b(j) + e(s, j), where a is what the search of study s happened to choose and b
    the seed, the mean has the variance σ_a²/S + σ_b²/J + σ_e²/(SJ). It is estimated by

        s²(study means)/S + s²(seed means)/J,

    each of which has σ_e²/(SJ) in it, so that the interval is rather too wide than too narrow. Degrees of
    freedom are those of the larger part: Satterthwaite's, which estimate them from the same few values, cover
    93 % at three studies in simulation, these 95 % and more. Where all studies choose alike this is Student's
    t over the seeds, and where seeds do not matter it is Student's t over the studies.

    Args:
        values: one row per study, one column per seed; None where a run has no value. A seed counts where
            all studies know it.

    Returns:
        None where no seed is known to all. From one study the interval is over its seeds, and leaves out
        what another search would have chosen; from one seed it is over the studies.

    Source: the moments of a crossed design with random effects (Searle, Casella & McCulloch 1992, chapter 4);
    the degrees of freedom are this suite's.
    """
    columns = [column for column in zip(*values, strict=True) if all(v is not None for v in column)]
    y = np.array(columns, dtype=np.float64).T
    if not y.size:
        return None
    studies, seeds = y.shape
    if studies == 1 or seeds == 1:
        return estimate(y.ravel().tolist())
    parts = [
        (float(y.mean(axis=1).var(ddof=1)) / studies, studies - 1),
        (float(y.mean(axis=0).var(ddof=1)) / seeds, seeds - 1),
    ]
    total = sum(variance for variance, _ in parts)
    _, freedom = max(parts, key=lambda part: (part[0], -part[1]))
    return Estimate(float(y.mean()), quantile(freedom) * math.sqrt(total), studies * seeds)
