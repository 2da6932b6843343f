"""What was to be forgotten (undesirable rows of unpaired labels) and what was to be kept (desirable ones).

No direction is better: low on the forget side is the aim, at the price on the retain side, and a policy that
does nothing retains best.
"""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, Mask, masked_mean, metric


@metric("nats")
def forget_logp(ev: Evaluation) -> Array | None:
    """Mean over the undesirable rows of unpaired labels of the policy's summed completion log-probability.

    Low is the aim of unlearning, but falling without end is collapse: to be read against retain_logp.
    Source: Zhang et al. 2024 (NPO), §2 (the likelihood of the forget set).
    """
    return _mean(ev, ev.rejected_logp, ev.rejected_rows)


@metric("nats")
def retain_logp(ev: Evaluation) -> Array | None:
    """Mean over the desirable rows of unpaired labels of the policy's summed completion log-probability.

    Source: Zhang et al. 2024 (NPO), §2 (the likelihood of the retain set).
    """
    return _mean(ev, ev.chosen_logp, ev.chosen_rows)


@metric("nats")
def forget_token_logp(ev: Evaluation) -> Array | None:
    """Mean over the undesirable rows of unpaired labels of the log-probability per completion token.

    Source: Maini et al. 2024, §2 (length-normalised probability of the answer).
    """
    return _mean(ev, ev.rejected_logp / np.maximum(ev.rejected_length, 1.0), ev.rejected_rows)


@metric("nats")
def retain_token_logp(ev: Evaluation) -> Array | None:
    """Mean over the desirable rows of unpaired labels of the log-probability per completion token.

    Source: Maini et al. 2024, §2 (length-normalised probability of the answer).
    """
    return _mean(ev, ev.chosen_logp / np.maximum(ev.chosen_length, 1.0), ev.chosen_rows)


@metric("nats")
def forget_change(ev: Evaluation) -> Array | None:
    """Change of forget_logp since step 0: below 0 the undesirable rows of unpaired labels lost probability.

    Source: Zhang et al. 2024 (NPO), §2, as a difference.
    """
    return _mean(ev, ev.rejected_logp - ev.rejected_ref, ev.rejected_rows)


@metric("nats")
def retain_change(ev: Evaluation) -> Array | None:
    """Change of retain_logp since step 0: below 0 what was to be kept lost probability along with the rest.

    Source: Zhang et al. 2024 (NPO), §2, as a difference.
    """
    return _mean(ev, ev.chosen_logp - ev.chosen_ref, ev.chosen_rows)


def _mean(ev: Evaluation, values: Array, rows: Mask) -> Array | None:
    return None if ev.paired else masked_mean(values, rows)
