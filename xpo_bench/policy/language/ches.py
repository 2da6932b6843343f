"""CHES, the centered hidden embedding similarity of a pair: which preferences are likely to displace what
they chose.

With h_k the hidden state from which the output head predicts token k of a completion,

    CHES = ⟨Σ_k h_k(chosen), Σ_k h_k(rejected)⟩ − ‖Σ_k h_k(chosen)‖²

and the length-normalised score has means in place of sums. Training a margin on a pair with a high score
tends to lower the log-probability of its chosen completion too (likelihood displacement): the two completions
push the output head in the same direction. Values depend on the model's scale; the order of pairs is what
they say.

Source: Razin et al. 2024, definition 2 (arXiv 2410.08847).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xpo_bench.contract.examples import Pair
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.fit import sides_of
from xpo_bench.policy.language.hidden import summed

__all__ = ["CausalLM", "ches"]

Numbers = npt.NDArray[np.float64]


class Ches(NamedTuple):
    """CHES of each pair, and the length-normalised one, shape (n,) each."""

    sums: Numbers
    means: Numbers


@torch.no_grad()
def ches(
    policy: CausalLM,
    pairs: Sequence[Pair],
    truncate: str = "prompt",
    tell: Callable[[int], None] = lambda done: None,
) -> Ches:
    """CHES of pairs under the policy as it is, over the tokens that are scored (EOS included).

    Args:
        pairs: pairs that fit the policy (`Fitted.examples` without those that are left out).
        tell: is called with the number of completions that are done.

    Raises:
        UsageError: a token id that the model has no embedding for, or a model whose head is not one module.
    """
    encoded = policy.encode([side for e in pairs for side in sides_of(e)], truncate)
    rows = encoded.rows
    if encoded.dropped:
        raise UsageError(f"{encoded.dropped} completions do not fit the context of {policy.context} tokens")
    sums = summed(policy.scorer, rows, policy.spec.name, tell)
    means = sums / torch.tensor([[row.length] for row in rows], dtype=torch.float64)
    return Ches(*(_scores(each[encoded.item]) for each in (sums, means)))


def _scores(hidden: Tensor) -> Numbers:
    """⟨chosen, rejected⟩ − ‖chosen‖² of pairs, whose sides alternate in `hidden`, shape (2n, width)."""
    # ⟨c, r⟩ − ⟨c, c⟩ = ⟨c, r − c⟩: one product, exactly 0 where both sides are equal
    chosen, rejected = hidden[::2], hidden[1::2]
    scores: Numbers = (chosen * (rejected - chosen)).sum(-1).numpy()
    return scores
