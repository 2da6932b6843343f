"""What the policy earns on worlds with a known reward, and how much it leaves behind."""

from __future__ import annotations

import numpy as np

from xpo_bench.contract.metric import Array, Evaluation, WorldEvaluation, metric
from xpo_bench.metrics.frontier import ROUNDING, deficits_of, frontier_deficit, frontier_reward, log_total
from xpo_bench.metrics.kl import divergence, weighted, world_kl

__all__ = [
    "expected_length",
    "frontier_gap",
    "frontier_reward",
    "gold_reward",
    "optimum_kl",
    "regret",
    "unseen_mass",
]


@metric("reward", better="higher")
def gold_reward(ev: Evaluation) -> Array | None:
    """E_π r under the true reward, averaged over the prompts of the training data.

    Exact on enumerable worlds; on text with a known reward the mean over on-policy samples (temperature 1,
    full support, up to the budget's length limit). Source: Gao et al. 2022, §2 (the gold reward).
    """
    return None if ev.world is None or ev.world.reward is None else _expected(ev.world, ev.world.reward)


@metric("reward", better="lower")
def frontier_gap(ev: Evaluation) -> Array | None:
    """How far the policy lies below the reward–KL frontier: max{E_ρ r : KL(ρ‖π_ref) ≤ kl} − E_π r at its kl.

    Both are averages over the prompts of the training data, so that ρ may spend its KL where it pays; the
    maximum is at ρ ∝ π_ref·exp(r/b) with one b for all prompts. 0 for a policy of that form at any b: needs
    no β. A gap below 0 is rounding up to 1e-10 of the range of rewards and reads 0; beyond that it is an
    error. Source: Gao et al. 2022, Fig. 1 (reward against KL); the Gibbs form is Rafailov et al. 2023, eq. 4.
    """
    world = ev.world
    if world is None or world.reward is None:
        return None
    # both are counted from the best action, so that an offset of the rewards costs no digits
    reachable = world.mask & np.isfinite(world.ref_logp)
    deficit = deficits_of(world.reward, reachable).value
    gap = _expected(world, deficit) - frontier_deficit(
        world_kl(world), world.ref_logp, reachable, deficit, world.prompt_weight
    )
    tolerance = ROUNDING * np.where(world.prompt_weight > 0, deficit.max(-1), 0.0).max(-1)
    if bool((gap < -tolerance).any()):
        raise ArithmeticError(
            f"frontier_gap {float(np.nanmin(gap)):.6g}: a policy above the exact frontier; "
            "its log-probabilities or those of the reference do not sum to 1"
        )
    return np.maximum(gap, 0.0)  # keeps NaN


@metric("reward", better="lower")
def regret(ev: Evaluation) -> Array | None:
    """J* − J(π) with J = E r − β·KL(π‖π_ref), for algorithms whose hyperparameter is that β.

    Computed as β·KL(π‖π*) with π* ∝ π_ref·exp(r/β), which it equals, so that it is never negative by
    rounding. Source: Rafailov et al. 2023, eq. 3, 4 and appendix A.1.
    """
    if ev.world is None or ev.world.reward is None or ev.kl_strength is None:
        return None
    beta = np.where(ev.kl_strength > 0, ev.kl_strength, np.nan)
    return beta * weighted(
        ev.world, divergence(ev.world.logp, _optimum(ev.world, ev.world.reward, beta), ev.world.mask)
    )


@metric("–", better="lower")
def unseen_mass(ev: Evaluation) -> Array | None:
    """Probability that π gives to actions that the training data lacks, averaged over its prompts.

    What a policy holds there was earned by no preference: a loss of the margin alone may move mass to them.
    Absent where the data contain every action. Source: this suite; after Xu et al. 2024 ("Is DPO superior to
    PPO?": out-of-distribution actions).
    """
    world = ev.world
    if world is None or world.seen is None:
        return None
    unseen = world.mask & ~world.seen
    used = unseen & (world.prompt_weight > 0)[..., None]
    p = np.where(unseen, np.exp(np.where(unseen, world.logp, 0.0)), 0.0)
    return np.where(used.any((-2, -1)), weighted(world, p.sum(-1)), np.nan)


@metric("tokens")
def expected_length(ev: Evaluation) -> Array | None:
    """Mean length of the policy's completions, E_π |y|, averaged over the prompts of the training data.

    Exact, on tabular worlds that state lengths; on text `sample_length` is its estimate.
    Source: the usual definition.
    """
    if ev.world is None or ev.world.lengths is None:
        return None
    return _expected(ev.world, ev.world.lengths)


def optimum_kl(world: WorldEvaluation, kl_strength: Array) -> Array:
    """KL(π*‖π_ref), nats, of the optimum π* ∝ π_ref·exp(r/β), NaN where β or r is unknown, shape (R,)."""
    beta = np.where(kl_strength > 0, kl_strength, np.nan)
    if world.reward is None:
        return np.full(beta.shape, np.nan)
    kl = weighted(world, divergence(_optimum(world, world.reward, beta), world.ref_logp, world.mask))
    return np.where(np.isnan(beta), np.nan, kl)


def _optimum(world: WorldEvaluation, reward: Array, beta: Array) -> Array:
    """log π* of every run, shape (R, P, A); runs without β are computed at β = 1 and left out by the caller.

    Rewards are counted from the best action of their prompt: r/β itself would swallow log π_ref at a large
    offset or small β.
    """
    reachable = world.mask & np.isfinite(world.ref_logp)
    deficit = deficits_of(reward, reachable).value / np.where(np.isnan(beta), 1.0, beta)[:, None, None]
    tilted = np.where(reachable, world.ref_logp, -np.inf) - deficit
    value: Array = tilted - log_total(tilted, reachable)[..., None]
    return value


def _expected(world: WorldEvaluation, reward: Array) -> Array:
    p = np.where(world.mask, np.exp(np.where(world.mask, world.logp, 0.0)), 0.0)
    return weighted(world, (p * np.where(world.mask, reward, 0.0)).sum(-1))
