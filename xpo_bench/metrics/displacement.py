"""How likely the completions of the evaluation pairs have become, and where the chosen ones lost."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, masked_mean, metric
from xpo_bench.metrics.ties import below, tolerance


@metric("nats")
def chosen_logp(ev: Evaluation) -> Array:
    """Mean over evaluation pairs of the summed log-probability of the chosen completion under the policy.

    Source: Rafailov et al. 2023, §4.
    """
    return masked_mean(ev.chosen_logp, ev.chosen_rows)


@metric("nats")
def rejected_logp(ev: Evaluation) -> Array:
    """Mean over evaluation pairs of the summed log-probability of the rejected completion under the policy.

    Source: Rafailov et al. 2023, §4.
    """
    return masked_mean(ev.rejected_logp, ev.rejected_rows)


@metric("–")
def chosen_prob(ev: Evaluation) -> Array:
    """Mean over pairs of the geometric-mean token probability of the chosen completion, exp(logp / length).

    Source: Meng et al. 2024, eq. 3 (the length-normalised likelihood).
    """
    return masked_mean(_token_probability(ev.chosen_logp, ev.chosen_length), ev.chosen_rows)


@metric("–")
def rejected_prob(ev: Evaluation) -> Array:
    """Mean over pairs of the geometric-mean token probability of the rejected completion, exp(logp / length).

    Source: Meng et al. 2024, eq. 3 (the length-normalised likelihood).
    """
    return masked_mean(_token_probability(ev.rejected_logp, ev.rejected_length), ev.rejected_rows)


@metric("nats")
def displacement(ev: Evaluation) -> Array:
    """Mean change of log π(chosen) since step 0; below 0 the chosen completions lost probability.

    Source: Razin et al. 2024, §2 (likelihood displacement); Pal et al. 2024, §3.
    """
    return masked_mean(ev.chosen_logp - ev.chosen_ref, ev.chosen_rows)


@metric("–", better="lower")
def displaced_fraction(ev: Evaluation) -> Array:
    """Fraction of pairs whose chosen completion is less probable than at step 0, by more than rounding.

    Source: Razin et al. 2024, §2 (likelihood displacement).
    """
    fell = below(ev.chosen_logp - ev.chosen_ref, 0.0, tolerance(ev, ev.chosen_logp, ev.chosen_ref))
    return masked_mean(fell, ev.chosen_rows)


def _token_probability(logp: Array, length: Array) -> Array:
    value: Array = np.exp(logp / np.maximum(length, 1.0))
    return value
