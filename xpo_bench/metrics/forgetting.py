"""What a policy lost on texts that it was not trained on: the chosen texts of other sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.metric import metric


@metric("nats", better="higher", kind="run")
def base_logp_change(policy: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Mean change of log π of the chosen texts of other sets (`--base-data`) from the reference: below 0, the
    policy has forgotten.

    Of several sets the mean over the sets; `notes.base_data` has each.

    Args:
        policy, reference: summed log-probabilities of the texts of one set, nats, shape (N,).

    Source: the usual definition.
    """
    return float(np.mean(np.asarray(policy, np.float64) - np.asarray(reference, np.float64)))


@metric("nats", better="higher", kind="run")
def base_logp_change_per_token(
    policy: npt.ArrayLike, reference: npt.ArrayLike, lengths: npt.ArrayLike
) -> float:
    """base_logp_change per token: the change summed over the texts of a set, over all their tokens.

    Minus the change of the logarithm of their perplexity. Of several sets the mean over the sets.

    Args:
        policy, reference: as there. lengths: tokens of the texts, shape (N,).

    Source: the usual definition.
    """
    change = np.asarray(policy, np.float64) - np.asarray(reference, np.float64)
    return float(change.sum() / np.asarray(lengths, np.float64).sum())
