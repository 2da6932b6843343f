"""The policy on a general preference, which no reward need explain: as a strategy, and as a score.

Where a preference cycles there is no best action. Two answers remain: the policy that no other is preferred
to, and the action that wins most often. A reward fitted to the pairs finds the second.
"""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, WorldEvaluation, metric
from xpo_bench.metrics.kl import weighted

__all__ = ["borda", "exploitability"]


@metric("–", better="lower")
def exploitability(ev: Evaluation) -> Array | None:
    """What the best response wins against the policy beyond a draw: max over y of P(y ≻ π) − ½, exact.

    P(y ≻ π) = Σ π(y′)·P(y ≻ y′), averaged over the prompts of the training data after the maximum; an action
    against itself is ½. 0 exactly at a Nash policy of the preference game, to which no policy is preferred;
    at most ½. The game is symmetric, so that the duality gap of (π, π) is twice this. Only where the world
    states a general preference (`World.preference`). Source: Munos et al. 2023 (the game and its Nash
    policy); Lanctot et al. 2017 (NashConv, which sums this over the two players).
    """
    if ev.world is None or ev.world.preference is None:
        return None
    won = _won_against(ev.world, ev.world.preference)
    best = np.where(ev.world.mask, won, -np.inf).max(-1)
    # the best response wins at least what π wins against itself, ½: less is rounding
    return weighted(ev.world, np.maximum(best - 0.5, 0.0))


@metric("–", better="higher")
def borda(ev: Evaluation) -> Array | None:
    """Expected Borda score of the policy: E_π B(y), B(y) the mean of P(y ≻ y′) over the other actions y′.

    Largest at the Borda winner, the action that wins most often against one drawn uniformly. That is also
    what a reward fitted to all pairs alike ranks first, so that a reward-based loss can have the most of
    this and be exploitable all the same. ½ at a uniform policy. Averaged over the prompts of the training
    data; only where the world states a general preference (`World.preference`).
    Source: Borda 1781; Azar et al. 2023 (expected win rates, which IPO maximises).
    """
    world = ev.world
    if world is None or world.preference is None:
        return None
    others = world.mask[:, None, :] & ~np.eye(world.mask.shape[1], dtype=bool)
    # absent actions are nobody's opponent; a prompt of one action draws against nobody
    count = others.sum(-1)
    total = np.where(others, world.preference, 0.0).sum(-1)
    score = np.divide(total, count, out=np.full(total.shape, 0.5), where=count > 0)
    p = _probabilities(world)
    return weighted(world, (p * np.where(world.mask, score, 0.0)).sum(-1))


def _won_against(world: WorldEvaluation, preference: Array) -> Array:
    """P(y ≻ π) of every action, shape (R, P, A)."""
    # a product and a sum: a matrix product rounds by the number of runs
    won: Array = (_probabilities(world)[:, :, None, :] * preference).sum(-1)
    return won


def _probabilities(world: WorldEvaluation) -> Array:
    p: Array = np.where(world.mask, np.exp(np.where(world.mask, world.logp, 0.0)), 0.0)
    return p
