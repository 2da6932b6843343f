"""When two numbers are equal up to rounding: the one rule that every count of a metric follows.

A log-probability summed over tokens is known to about eps times its size, eps the spacing of the dtype of the
scores at 1 (2.2e-16 in float64, 1.2e-7 in float32). The tolerance of a difference of log-probabilities is
1e-9 nats plus eps times the sum of the sizes of its terms: 1e-9 on tables, about 2e-4 for a pair of
completions of −500 nats each in float32.

- A comparison of two numbers that differ by no more than the tolerance is a tie: it counts ½.
- A number counts as beyond a threshold (.999 of `determinism`, −ln 1000 of `collapsed`, 0 of
  `displaced_fraction`) only where it is beyond it by more than the tolerance.
- A probability is known to 1e-9 plus 64 eps, a reward to 1e-12 of the largest that is compared.
"""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import TIE, Array, Evaluation

PROBABILITY_EPS = 64
"""Roundings of 1 that a probability computed from log-ratios may be off by."""
REWARD = 1e-12
"""Relative rounding of rewards."""


def tolerance(ev: Evaluation, *terms: Array) -> Array:
    """Of a difference of these log-probabilities, nats."""
    # |fl(x) − x| ≤ eps·|x| for every term, and errors of a sum add up; an infinite term is known exactly
    size: Array = sum((np.where(np.isfinite(x), np.abs(x), 0.0) for x in terms), np.zeros_like(terms[0]))
    return TIE + ev.rounding * size


def margin_tolerance(ev: Evaluation) -> Array:
    """Of `Evaluation.margin`, nats, shape (R, E)."""
    return tolerance(ev, ev.chosen_logp, ev.rejected_logp, ev.chosen_ref, ev.rejected_ref)


def probability_tolerance(ev: Evaluation) -> float:
    """Of an implied preference."""
    return TIE + PROBABILITY_EPS * ev.rounding


def reward_tolerance(*rewards: Array) -> float:
    """Of differences among these rewards."""
    return REWARD * max(float(np.abs(r).max(initial=0.0)) for r in rewards)


def wins(difference: Array, tolerance: Array | float) -> Array:
    """1 where a difference is above 0, ½ at a tie, else 0; NaN counts as a loss."""
    value: Array = np.where(np.abs(difference) <= tolerance, 0.5, (difference > 0).astype(np.float64))
    return value


def below(values: Array, threshold: float, tolerance: Array | float) -> Array:
    """1 where a value is below a threshold by more than the tolerance, else 0."""
    value: Array = (values < threshold - tolerance).astype(np.float64)
    return value
