"""On-policy samples judged by a known reward, where completions are too many to enumerate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.metric import Array, metric
from xpo_bench.metrics.ties import reward_tolerance, wins


@metric("–", better="higher", kind="run")
def win_rate(policy: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Probability that a policy's sample has a higher gold reward than one of the initial policy.

    Ties count ½: rewards that differ by less than 1e-12 of the largest. All pairs of samples of one prompt
    are compared, then prompts are averaged: ½ at the initial policy.

    Args:
        policy, reference: gold rewards, shape (prompts, samples).

    Source: the usual definition; pairs after Mann & Whitney 1947.
    """
    # Mann–Whitney: every sample of the policy meets every one of the initial policy, shape (prompts, s, s')
    a, b = _matrix(policy)[:, :, None], _matrix(reference)[:, None, :]
    return float(np.mean(wins(a - b, reward_tolerance(a, b))))


@metric("reward", better="higher", kind="run")
def gold_gain(policy: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """gold_reward of on-policy samples minus that of the initial policy's samples for the same prompts.

    Both are drawn with the same random numbers, which takes most of the noise out of the difference.

    Args:
        policy, reference: gold rewards, shape (prompts, samples).

    Source: Gao et al. 2022, §2 (gold reward, counted from the initial policy).
    """
    return float(_matrix(policy).mean() - _matrix(reference).mean())


@metric("tokens", kind="run")
def sample_length(lengths: npt.ArrayLike) -> float:
    """Mean length of on-policy samples in tokens, end-of-sequence included, up to the budget's length limit.

    Source: the usual definition.
    """
    return float(np.mean(np.asarray(lengths, dtype=np.float64)))


@metric("share", kind="run")
def finished(ended: npt.ArrayLike) -> float:
    """Fraction of on-policy samples that ended by themselves, and not at the length limit.

    Measured by `xpo-bench evaluate`; records of runs have it as `notes.kl_finished`.

    Source: the usual definition.
    """
    return float(np.mean(np.asarray(ended, dtype=np.float64)))


def _matrix(values: npt.ArrayLike) -> Array:
    return np.atleast_2d(np.asarray(values, dtype=np.float64))
