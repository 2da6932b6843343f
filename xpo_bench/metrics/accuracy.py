"""How many pairs the policy ranks right: three definitions that the literature does not always tell apart."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, masked_mean, metric
from xpo_bench.metrics.ties import below, margin_tolerance, tolerance, wins

DECIDED = float(np.log(0.999 / 0.001))
"""Δ in nats at which σ(Δ) is .999."""


@metric("–", better="higher")
def reward_accuracy(ev: Evaluation) -> Array | None:
    """Fraction of pairs with Δ > 0, log-ratios against the initial policy; ties up to rounding count ½.

    At step 0 it is ½ by construction. Pairs without a preferred side are left out.
    Source: Lambert et al. 2024 (RewardBench, DPO as implicit reward).
    """
    return masked_mean(_margin_wins(ev), ev.chosen_rows) if ev.paired else None


@metric("–", better="higher")
def ranking_accuracy(ev: Evaluation) -> Array | None:
    """Fraction of pairs whose chosen completion has the higher summed log-probability; ties count ½.

    Source: Chen et al. 2024, §2 (preference learning algorithms do not learn preference rankings).
    """
    if not ev.paired:
        return None
    chosen, rejected = ev.chosen_logp, ev.rejected_logp
    return masked_mean(wins(chosen - rejected, tolerance(ev, chosen, rejected)), ev.chosen_rows)


@metric("–", better="higher")
def ranking_accuracy_avg(ev: Evaluation) -> Array | None:
    """Fraction of pairs whose chosen completion has the higher mean log-probability per token; ties count ½.

    Source: Meng et al. 2024, §2 (the metric that generation is guided by).
    """
    if not ev.paired:
        return None
    chosen, rejected = (
        ev.chosen_logp / np.maximum(ev.chosen_length, 1),
        ev.rejected_logp / np.maximum(ev.rejected_length, 1),
    )
    return masked_mean(wins(chosen - rejected, tolerance(ev, chosen, rejected)), ev.chosen_rows)


@metric("–", better="higher")
def accuracy_lc(ev: Evaluation) -> Array | None:
    """Length-controlled accuracy: mean of reward_accuracy over chosen-longer and chosen-shorter pairs.

    Always preferring the longer completion scores ½. Absent where one of the strata is empty.
    Source: this suite; after Dubois et al. 2024 (length-controlled AlpacaEval) and Park et al. 2024.
    """
    if not ev.paired:
        return None
    won = _margin_wins(ev)
    # ½·(P(right | chosen longer) + P(right | chosen shorter)): a rule that looks at length alone is right
    # always in one stratum and never in the other
    longer = masked_mean(won, ev.chosen_rows & (ev.chosen_length > ev.rejected_length))
    shorter = masked_mean(won, ev.chosen_rows & (ev.chosen_length < ev.rejected_length))
    return 0.5 * (longer + shorter)


@metric("–")
def longer_accuracy(ev: Evaluation) -> Array | None:
    """Fraction of pairs that the rule "prefer the longer completion, in tokens" ranks right; ties count ½.

    A property of the evaluated pairs, not of the policy: the floor that an accuracy on text has to beat.
    Absent where all pairs tie in length. Source: this suite; after Park et al. 2024 (length exploitation in
    direct preference optimization).
    """
    if not ev.paired:
        return None
    longer = ev.chosen_length - ev.rejected_length
    differs = ((longer != 0) & ev.chosen_rows).any(-1)
    return np.where(differs, masked_mean(wins(longer, 0.0), ev.chosen_rows), np.nan)


@metric("–")
def determinism(ev: Evaluation) -> Array | None:
    """Fraction of pairs with σ(Δ) > .999, by more than rounding: the policy has all but decided them.

    Source: Azar et al. 2023, §4.2 (DPO and deterministic preferences).
    """
    if not ev.paired:
        return None
    # σ(Δ) > .999 ⇔ −Δ < −ln(.999/.001): in logits, where float32 still tells .999 from .9999999
    return masked_mean(below(-ev.margin, -DECIDED, margin_tolerance(ev)), ev.chosen_rows)


@metric("–", better="lower", kind="run")
def generalization_gap(reward_accuracy: float, heldout_reward_accuracy: float) -> float:
    """reward_accuracy − heldout_reward_accuracy: what the accuracy on training pairs does not carry over.

    Source: the usual definition.
    """
    return reward_accuracy - heldout_reward_accuracy


@metric("–", better="higher", kind="run")
def validation_accuracy(ev: Evaluation) -> Array:
    """reward_accuracy on every other held-out pair, from the first on.

    By it the best evaluation of a curve is chosen; it stands in curves only.

    Source: the usual practice of early stopping; the halves are this suite's.
    """
    return accuracy_of_halves(ev)[0]


@metric("–", better="higher", kind="run")
def test_accuracy(ev: Evaluation) -> Array:
    """reward_accuracy on the held-out pairs that validation_accuracy leaves: what that evaluation reports.

    Curves only.

    Source: as validation_accuracy.
    """
    return accuracy_of_halves(ev)[1]


def accuracy_of_halves(ev: Evaluation) -> tuple[Array, Array]:
    """reward_accuracy on the even and on the odd rows, shape (R,) each, NaN where a half is empty."""
    won, even = _margin_wins(ev), np.arange(ev.valid.shape[-1]) % 2 == 0
    return masked_mean(won, ev.chosen_rows & even), masked_mean(won, ev.chosen_rows & ~even)


def _margin_wins(ev: Evaluation) -> Array:
    return wins(ev.margin, margin_tolerance(ev))
