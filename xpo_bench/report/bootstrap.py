"""Interquartile mean and probability of improvement over seeds: pure functions of arrays of shape (runs,)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2000


def iqm(values: ArrayLike) -> tuple[float, float, float]:
    """Interquartile mean of `values`, shape (runs,), and its 95 % percentile bootstrap interval: (iqm, low, high).

    The resampling is seeded from the sorted values, so that the order of runs changes nothing.

    Source: Agarwal et al. 2021, section 4.3.
    """
    from scipy.stats import trim_mean  # imported where it is needed: it takes as long as a table does

    x = np.sort(np.asarray(values, dtype=np.float64))
    seed = int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=8).digest(), "big")
    drawn = x[np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))]
    low, high = np.quantile(trim_mean(drawn, 0.25, axis=1), [0.025, 0.975])
    return float(trim_mean(x, 0.25)), float(low), float(high)


def improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) over all pairs of a run of `x`, shape (n,), and one of `y`, shape (m,); ties count a half.

    Source: Agarwal et al. 2021, section 4.3; Mann & Whitney 1947.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))
