"""Curves of planted log-ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpo_bench.contract.metric import Evaluation
from xpo_bench.metrics.curve import Curve
from xpo_bench.train.budget import evaluation_steps

Pairs = Callable[..., Evaluation]
At = Callable[[int], Any]


def curve_of(
    pairs: Pairs, curves: Sequence[At], steps: int = 200, saturated: bool | None = None, **facts: Any
) -> Curve:
    """Runs whose rejected log-ratios follow the given curves."""
    curve = Curve(steps, **facts)
    for t in evaluation_steps(steps):
        rejected = np.array([np.atleast_1d(at(t)) for at in curves], float)
        curve.add(pairs(np.zeros_like(rejected), rejected, t))
    if saturated is not None:
        curve.judge(np.full(len(curves), saturated))
    return curve
