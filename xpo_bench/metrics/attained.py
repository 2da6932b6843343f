"""What a run had attained where its path through KL and reward meets a budget of KL.

The path is the evaluations of a run in order, and between two of them the mixtures of their policies: with
weight t on the later one a mixture earns (1 − t)·r + t·r′, and its KL is at most (1 − t)·kl + t·kl′, since KL
is convex in the policy. So the straight line between two evaluations is a bound that can be had, and since
the exact frontier is concave, no such line crosses it. KL need not rise along the path.

A policy that is set in closed form has no evaluations on its way. Its path is the sweep of its strength:
π_s ∝ π_ref·(π/π_ref)^s for s from 0 to 1, what the same solution gives at a KL that costs 1/s as much.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.metric import Array, Mask, WorldEvaluation, metric
from xpo_bench.metrics.frontier import ROUNDING, deficits_of, frontier_deficit, log_total
from xpo_bench.metrics.kl import divergence, weighted

BUDGETS = (0.3, 1.0, 3.0)
"""KL budgets, nats, at which every run is read."""
REWARD_EPS = 64 * float(np.finfo(np.float64).eps)
"""Relative rounding of an expected reward."""
SWEEP = 32
"""Strengths at which the sweep of a closed form is looked at before its end is found by bisection."""
HALVINGS = 40
"""Halvings of a step of the sweep: beyond them s does not change any more."""


@metric("share", better="higher", kind="run")
def attained(kl: Array, reward: Array, bounds: Bounds) -> Array:
    """Reward gained within a KL budget over what could be had: 0 is the reference, 1 the exact frontier.

    (max over the path with kl ≤ B of E_π r − E_ref r) / (frontier(B) − E_ref r), here at the task's own
    budget, B = KL(π*‖π_ref) with π* ∝ π_ref·exp(r/β) at the task's stated β (the note `budget_kl`). The path
    is linear in (kl, gold_reward) between evaluations: mixtures of the two policies earn that reward at a KL
    that is no larger. Of a policy set in closed form it is the sweep of its strength. Absent where the reward
    is unknown, and where nothing can be had.

    Args:
        kl, reward: of the evaluations in order, NaN where there is none, shape (K, R).
        bounds: what can be had at the budget.

    Source: this suite; after Gao et al. 2022, Fig. 1 (reward against KL).
    """
    return gained(best_within(kl, reward, bounds.budget), bounds)


@metric("share", better="higher", kind="run", name="attained_0.3")
def attained_03(kl: Array, reward: Array, bounds: Bounds) -> Array:
    """`attained` at a budget of 0.3 nats of KL: the reward gained by then over the exact frontier's there.

    Source: as attained.
    """
    return attained(kl, reward, bounds)


@metric("share", better="higher", kind="run")
def attained_1(kl: Array, reward: Array, bounds: Bounds) -> Array:
    """`attained` at a budget of 1 nat of KL: the reward gained by then over the exact frontier's there.

    Source: as attained.
    """
    return attained(kl, reward, bounds)


@metric("share", better="higher", kind="run")
def attained_3(kl: Array, reward: Array, bounds: Bounds) -> Array:
    """`attained` at a budget of 3 nats of KL: the reward gained by then over the exact frontier's there.

    Source: as attained.
    """
    return attained(kl, reward, bounds)


@metric("–", better="higher", kind="run", name="accuracy_at_0.3")
def accuracy_at_03(kl: Array, accuracy: Array) -> Array:
    """Held-out accuracy where the path first reaches a KL of 0.3 nats, or at its end; see `accuracy_at_1`.

    Source: as accuracy_at_1.
    """
    return where_reached(kl, 0.3).of(accuracy)


@metric("–", better="higher", kind="run")
def accuracy_at_1(kl: Array, accuracy: Array) -> Array:
    """Held-out accuracy where the path first reaches a KL of 1 nat, or at its end where it never does.

    accuracy_lc where pairs of both kinds are held out, else reward_accuracy; linear between the two
    evaluations, and no maximum over noisy numbers. Reported with the prefix heldout_, where kl and held-out
    pairs are both evaluated along the run. Source: this suite; after Gao et al. 2022, Fig. 1 (performance
    against KL).
    """
    return where_reached(kl, 1.0).of(accuracy)


@metric("–", better="higher", kind="run")
def accuracy_at_3(kl: Array, accuracy: Array) -> Array:
    """Held-out accuracy where the path first reaches a KL of 3 nats, or at its end; see `accuracy_at_1`.

    Source: as accuracy_at_1.
    """
    return where_reached(kl, 3.0).of(accuracy)


@metric("–", better="higher", kind="run", name="win_rate_at_0.3")
def win_rate_at_03(kl: Array, win_rate: Array) -> Array:
    """`win_rate` where the path first reaches a KL of 0.3 nats, or at its end; see `win_rate_at_1`.

    Source: as win_rate_at_1.
    """
    return where_reached(kl, 0.3).of(win_rate)


@metric("–", better="higher", kind="run")
def win_rate_at_1(kl: Array, win_rate: Array) -> Array:
    """`win_rate` where the path first reaches a KL of 1 nat, or at its end where it never does.

    Linear between the two samplings of the policy. On text with a gold reward.
    Source: this suite; after Gao et al. 2022, Fig. 1 (performance against KL).
    """
    return where_reached(kl, 1.0).of(win_rate)


@metric("–", better="higher", kind="run")
def win_rate_at_3(kl: Array, win_rate: Array) -> Array:
    """`win_rate` where the path first reaches a KL of 3 nats, or at its end; see `win_rate_at_1`.

    Source: as win_rate_at_1.
    """
    return where_reached(kl, 3.0).of(win_rate)


ATTAINED = dict(zip(BUDGETS, ("attained_0.3", "attained_1", "attained_3"), strict=True))
ACCURACY = dict(zip(BUDGETS, ("accuracy_at_0.3", "accuracy_at_1", "accuracy_at_3"), strict=True))
WIN_RATE = dict(zip(BUDGETS, ("win_rate_at_0.3", "win_rate_at_1", "win_rate_at_3"), strict=True))
"""Budget -> the name of the metric there."""


# --------------------------------------------------------------------------- what can be had


class Bounds(NamedTuple):
    """What a budget can buy, shape (R,) each.

    `budget`: nats. `start`: E_ref r. `gain`: frontier(budget) − E_ref r. `rounding`: differences of rewards
    of at most this much are rounding. `tolerance`: part of `gain` by which a policy may lie above it.
    """

    budget: Array
    start: Array
    gain: Array
    rounding: Array
    tolerance: Array


def bounds_at(world: WorldEvaluation, reward: Array, budget: Array) -> Bounds:
    """What every run can have within its budget, under its own weights of the prompts.

    Args:
        reward: of the world, shape (P, A). budget: nats, shape (R,).
    """
    reachable = world.mask & np.isfinite(world.ref_logp)
    found = deficits_of(reward, reachable)
    # runs on the same prompts within the same budget have one frontier: it is searched once
    asked = np.column_stack([budget, world.prompt_weight])
    unique, place = np.unique(asked, axis=0, return_inverse=True)
    place = place.reshape(-1)
    p = np.where(reachable, np.exp(np.where(reachable, world.ref_logp, 0.0)), 0.0)
    mean = (p * found.value).sum(-1)
    below = np.where(unique[:, 1:] > 0, unique[:, 1:] * mean, 0.0).sum(-1)
    gain = below - frontier_deficit(unique[:, 0], world.ref_logp, reachable, found.value, unique[:, 1:])
    used = world.prompt_weight > 0
    start = weighted(world, (p * np.where(reachable, reward, 0.0)).sum(-1)[None])
    size = np.where(used, np.where(reachable, np.abs(reward), 0.0).max(-1), 0.0).max(-1)
    span = np.where(used, found.value.max(-1), 0.0).max(-1)
    return Bounds(budget, start, gain[place], REWARD_EPS * size, REWARD_EPS * size + ROUNDING * span)


def gained(best: Array, bounds: Bounds) -> Array:
    """The part of `bounds.gain` that a reward is above the reference's, NaN where the gain is rounding.

    Raises:
        ArithmeticError: more than could be had.
    """
    above = best - bounds.start
    above = np.where(above <= bounds.rounding, 0.0, above)  # keeps NaN
    if bool((above > bounds.gain + bounds.tolerance).any()):
        at = int(np.nanargmax(above - bounds.gain))
        raise ArithmeticError(
            f"attained {above[at]:.17g} of {bounds.gain[at]:.17g} within {bounds.budget[at]:.6g} nats: a "
            "path above the exact frontier; its log-probabilities or those of the reference do not sum to 1"
        )
    worth = bounds.gain > bounds.tolerance
    share: Array = np.minimum(above, bounds.gain) / np.where(worth, bounds.gain, 1.0)
    return np.where(worth, share, np.nan)


def best_within(kl: Array, reward: Array, budget: Array) -> Array:
    """The largest reward on the path where its KL is at most the budget, NaN where there is no path.

    Args:
        kl, reward: of the evaluations in order, NaN where there is none, shape (K, R). budget: shape (R,).
    """
    known = np.isfinite(kl) & np.isfinite(reward)
    values = np.where(known & (kl <= budget), reward, -np.inf)
    if len(kl) > 1:
        before, after = _between(known)
        k0, k1 = np.take_along_axis(kl, before, 0), kl[1:]
        r0, r1 = np.take_along_axis(reward, before, 0), reward[1:]
        # a line that crosses the budget, in either direction, is followed up to it
        crosses = after & ((k0 <= budget) != (k1 <= budget))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (budget - k0) / (k1 - k0)
            crossing = np.where(crosses, (1 - t) * r0 + t * r1, -np.inf)
        values = np.concatenate([values, crossing])
    best: Array = values.max(0)
    return np.where(known.any(0), best, np.nan)


def _between(known: Mask) -> tuple[npt.NDArray[np.intp], Mask]:
    """Of every evaluation but the first, the last known one before it, and whether both are known."""
    last = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, None], -1), axis=0)[:-1]
    return np.maximum(last, 0), known[1:] & (last >= 0)


# --------------------------------------------------------------------------- closed forms


class Sweep(NamedTuple):
    """KL and reward along the path of a closed form, at strengths from 0 to 1, shape (SWEEP + 1, R) each."""

    kl: Array
    reward: Array


def sweep(world: WorldEvaluation, reward: Array) -> Sweep:
    """The sweep of every run's policy; `reward` is that of the world, shape (P, A)."""
    points = [_tilted(world, reward, np.full(len(world.logp), j / SWEEP)) for j in range(SWEEP + 1)]
    return Sweep(np.stack([kl for kl, _ in points]), np.stack([r for _, r in points]))


def best_of_sweep(path: Sweep, world: WorldEvaluation, reward: Array, budget: Array) -> Array:
    """The largest reward of the sweep where its KL, which rises with s, is at most the budget, shape (R,).

    The strength at which KL reaches the budget is found by bisection.
    """
    runs = np.arange(len(budget))
    inside = path.kl <= budget
    best = np.where(inside, path.reward, -np.inf).max(0)
    last = inside.sum(0) - 1
    low, high = last / SWEEP, np.minimum(last + 1, SWEEP) / SWEEP
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        kl, _ = _tilted(world, reward, middle)
        low, high = np.where(kl <= budget, middle, low), np.where(kl <= budget, high, middle)
    _, there = _tilted(world, reward, low)
    out: Array = np.maximum(best, np.where(last < SWEEP, there, path.reward[-1, runs]))
    return out


def _tilted(world: WorldEvaluation, reward: Array, s: Array) -> tuple[Array, Array]:
    """KL and reward of π_s ∝ π_ref·(π/π_ref)^s, shape (R,) each; `s` has shape (R,)."""
    there = world.mask & np.isfinite(world.ref_logp)
    with np.errstate(invalid="ignore"):
        ratio = np.where(there, np.maximum(world.logp - world.ref_logp, -1e300), 0.0)  # 0 · −∞ is no number
    values = np.where(there, world.ref_logp + s[:, None, None] * ratio, -np.inf)
    logp = values - log_total(values, there)[..., None]
    p = np.where(there, np.exp(np.where(there, logp, 0.0)), 0.0)
    earned = (p * np.where(there, reward, 0.0)).sum(-1)
    return weighted(world, divergence(logp, world.ref_logp, there)), weighted(world, earned)


# --------------------------------------------------------------------------- where a KL is reached


class Reached(NamedTuple):
    """Where the path of every run first reaches a KL, or its end: between two evaluations, shape (R,) each.

    `before`, `after`: their indices, −1 where there is no path. `t`: part of the way from one to the other.
    """

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    t: Array

    def of(self, values: npt.NDArray[np.floating[Any]]) -> Array:
        """A quantity there, linear between the two evaluations, NaN where there is no path.

        Args:
            values: at the evaluations, shape (K, R) or (K, R, E).
        """
        runs, some = np.arange(len(self.t)), self.before >= 0
        a, b = values[self.before, runs], values[self.after, runs]
        shape = (-1,) + (1,) * (a.ndim - 1)
        t = self.t.reshape(shape)
        # at an evaluation itself its neighbour, which may be unknown, has no say
        mixed = np.where(t == 0, a, np.where(t == 1, b, (1 - t) * a + t * b))
        found: Array = np.where(some.reshape(shape), mixed, np.nan)
        return found


def where_reached(kl: Array, budget: float) -> Reached:
    """Where KL is first at least the budget, or the last evaluation where it never is.

    Args:
        kl: of the evaluations in order, NaN where there is none, shape (K, R). budget: nats.
    """
    known = np.isfinite(kl)
    count, runs = len(kl), np.arange(kl.shape[1])
    over = known & (kl >= budget)
    end = np.where(known.any(0), count - 1 - known[::-1].argmax(0), -1)
    after = np.where(over.any(0), over.argmax(0), end)
    earlier = known & (np.arange(count)[:, None] < after)
    before = np.where(earlier.any(0), count - 1 - earlier[::-1].argmax(0), after)
    k0, k1 = kl[before, runs], kl[after, runs]
    crosses = over.any(0) & (before < after)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(crosses, (budget - k0) / (k1 - k0), 1.0)
    return Reached(before, after, np.clip(t, 0.0, 1.0))
