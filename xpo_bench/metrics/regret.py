"""What the policy earns on worlds with a known reward, and how much it leaves behind."""

from __future__ import annotations

import numpy as np

from xpo_bench.evaluation import Array, Evaluation, Mask, WorldEvaluation, metric
from xpo_bench.metrics.kl import divergence, weighted, world_kl

ITERATIONS = 200
"""Steps of the search for the frontier at most; it halves its bracket where Newton's step leaves it."""


@metric("reward", better="higher")
def gold_reward(ev: Evaluation) -> Array | None:
    """E_π r under the true reward, averaged over the prompts of the training data.

    Exact on enumerable worlds; on text with a known reward the mean over on-policy samples (temperature 1, full
    support, up to the budget's length limit).
    Source: Gao et al. 2022, §2 (the gold reward).
    """
    return None if ev.world is None or ev.world.reward is None else _expected(ev.world, ev.world.reward)


@metric("reward", better="lower")
def frontier_gap(ev: Evaluation) -> Array | None:
    """How far below the exact reward–KL frontier the policy lies: max{E_ρ r : KL(ρ‖π_ref) ≤ kl} − E_π r at its own kl.

    Both are averages over the prompts of the training data, so that ρ may spend its KL where it pays; the maximum
    is at ρ ∝ π_ref·exp(r/b) with one b for all prompts. 0 for a policy of that form at any b: needs no β.
    Source: Gao et al. 2022, Fig. 1 (reward against KL); the Gibbs form is Rafailov et al. 2023, eq. 4.
    """
    if ev.world is None or ev.world.reward is None:
        return None
    best = frontier_reward(world_kl(ev.world), ev.world.ref_logp, ev.world.mask, ev.world.reward, ev.world.prompt_weight)
    return np.maximum(best - _expected(ev.world, ev.world.reward), 0.0)


@metric("reward", better="lower")
def regret(ev: Evaluation) -> Array | None:
    """J* − J(π) with J = E r − β·KL(π‖π_ref), for algorithms whose hyperparameter is that β.

    Computed as β·KL(π‖π*) with π* ∝ π_ref·exp(r/β), which it equals, so that it is never negative by rounding.
    Source: Rafailov et al. 2023, eq. 3, 4 and appendix A.1.
    """
    if ev.world is None or ev.world.reward is None or ev.kl_strength is None:
        return None
    beta = np.where(ev.kl_strength > 0, ev.kl_strength, np.nan)
    return beta * weighted(ev.world, divergence(ev.world.logp, _optimum(ev.world, ev.world.reward, beta), ev.world.mask))


@metric("–", better="lower")
def unseen_mass(ev: Evaluation) -> Array | None:
    """Probability that π gives to actions which occur nowhere in the training data, averaged over its prompts.

    What a policy holds there was earned by no preference: a loss of the margin alone may move mass to them. Absent where the
    data contain every action.
    Source: this suite; after Xu et al. 2024 ("Is DPO superior to PPO?": out-of-distribution actions).
    """
    world = ev.world
    if world is None or world.seen is None:
        return None
    unseen = world.mask & ~world.seen
    used = unseen & (world.prompt_weight > 0)[..., None]
    p = np.where(unseen, np.exp(np.where(unseen, world.logp, 0.0)), 0.0)
    return np.where(used.any((-2, -1)), weighted(world, p.sum(-1)), np.nan)


def optimum_kl(world: WorldEvaluation, kl_strength: Array) -> Array:
    """KL(π*‖π_ref) in nats of the exact optimum π* ∝ π_ref·exp(r/β), NaN where β or r is unknown, shape (R,)."""
    beta = np.where(kl_strength > 0, kl_strength, np.nan)
    if world.reward is None:
        return np.full(beta.shape, np.nan)
    kl = weighted(world, divergence(_optimum(world, world.reward, beta), world.ref_logp, world.mask))
    return np.where(np.isnan(beta), np.nan, kl)


def _optimum(world: WorldEvaluation, reward: Array, beta: Array) -> Array:
    """log π* of every run, shape (R, P, A); runs without β are computed at β = 1 and left out by the caller."""
    tilt = np.where(world.mask, reward, 0.0) / np.where(np.isnan(beta), 1.0, beta)[:, None, None]
    tilted = np.where(world.mask, world.ref_logp, 0.0) + tilt
    return tilted - _logsumexp(tilted, world.mask)


def frontier_reward(kl: Array, ref_logp: Array, mask: Mask, reward: Array, prompt_weight: Array) -> Array:
    """max over ρ of the mean E_ρ r subject to the mean KL(ρ‖π_ref) ≤ kl, exact, for each run.

    K(b), the mean KL of ρ_b ∝ π_ref·exp(r/b), rises with 1/b, so ln K(b) = ln kl is solved for ln(1/b) by Newton's
    method inside a shrinking bracket; what is left of the constraint is added along the frontier's tangent,
    whose slope is b.

    Args:
        kl, prompt_weight: shapes (R,), (R, P). ref_logp, mask, reward: shape (P, A).
    """
    used = prompt_weight.any(0)
    mask, weight = mask[used], prompt_weight[:, used]
    ref, gain = np.where(mask, ref_logp[used], 0.0), np.where(mask, reward[used], 0.0)
    ref = ref - _logsumexp(ref, mask)
    base = np.where(mask, np.exp(ref) * gain, 0.0).sum(-1, keepdims=True)
    top = np.where(mask, gain, -np.inf).max(-1, keepdims=True)
    argmax = mask & (gain == top)
    farthest = (weight * -_logsumexp(ref, argmax)[..., 0]).sum(-1)  # not @, whose rounding depends on the number of runs
    scale = float(np.where(mask, top - gain, 0.0).max(initial=0.0))

    out: Array = (weight * base[..., 0]).sum(-1)
    out = np.where(kl >= farthest, (weight * top[..., 0]).sum(-1), out)
    search = np.flatnonzero((kl > 1e-28) & (kl < farthest))
    if not len(search) or scale <= 0:
        return out
    kl, weight = kl[search], weight[search]
    gain = np.where(mask, gain - base, 0.0)

    def tilt(u: Array) -> tuple[Array, Array, Array]:
        """Mean KL, mean reward above the reference's, and mean variance at 1/b = exp(u)."""
        logits = ref + np.exp(u)[:, None, None] * gain
        logits = logits - _logsumexp(logits, mask)
        p = np.where(mask, np.exp(logits), 0.0)
        mean = (p * gain).sum(-1)
        variance = (p * (gain - mean[..., None]) ** 2).sum(-1)
        return tuple((weight * x).sum(-1) for x in (divergence(logits, ref, mask), mean, variance))

    low, high = np.full(len(kl), np.log(1e-18 / scale)), np.full(len(kl), np.log(1e12 / scale))
    at_reference = tilt(np.full(len(kl), -np.inf))[2]
    u = np.clip(0.5 * np.log(2 * kl / np.maximum(at_reference, 1e-300)), low + 1e-6, high - 1e-6)
    for _ in range(ITERATIONS):
        reached, mean, variance = tilt(u)
        off = np.log(np.maximum(reached, 1e-300)) - np.log(kl)
        low, high = np.where(off < 0, u, low), np.where(off < 0, high, u)
        done = (np.abs(off) < 1e-12) | (high - low < 1e-14)
        if done.all():
            break
        slope = np.exp(2 * u) * variance / np.maximum(reached, 1e-300)
        newton = u - off / np.maximum(slope, 1e-300)
        u = np.where(done, u, np.where((newton > low) & (newton < high), newton, 0.5 * (low + high)))
    out[search] += mean + (kl - reached) * np.exp(-u)
    return out


def _expected(world: WorldEvaluation, reward: Array) -> Array:
    p = np.where(world.mask, np.exp(np.where(world.mask, world.logp, 0.0)), 0.0)
    return weighted(world, (p * np.where(world.mask, reward, 0.0)).sum(-1))


def _logsumexp(values: Array, mask: Mask) -> Array:
    """ln Σ exp over the last axis, kept, where `mask` is true."""
    top = np.where(mask, values, -np.inf).max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        value: Array = top + np.log(np.where(mask, np.exp(np.where(mask, values - top, 0.0)), 0.0).sum(-1, keepdims=True))
    return value
