"""What the paths of a group of runs come to where they meet budgets of KL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xpo_bench.contract.metric import Array, History, WorldEvaluation
from xpo_bench.metrics.attained import (
    ACCURACY,
    ATTAINED,
    BUDGETS,
    WIN_RATE,
    Reached,
    best_of_sweep,
    best_within,
    bounds_at,
    gained,
    sweep,
    where_reached,
)
from xpo_bench.metrics.regret import optimum_kl


class AtBudgets:
    """Reads the curves of R runs at budgets of KL.

    Args:
        closed: the runs were set in closed form, all of them: their path is the sweep of their strength.
        beta: the task's stated β. initial: the world at step 0, where it is known exactly.
    """

    def __init__(self, closed: bool, beta: float, initial: WorldEvaluation | None) -> None:
        self.closed = closed
        self.budget_kl: Array | None = None
        """KL of the optimum at the stated β, nats, shape (R,); None without a known reward."""
        if initial is not None and initial.reward is not None:
            self.budget_kl = optimum_kl(initial, np.full(len(initial.logp), beta))

    def attained(self, history: History, world: WorldEvaluation | None) -> dict[str, Array]:
        """`attained` at every budget, shape (R,) each; empty without a known reward.

        Args:
            world: at the last evaluation.
        """
        if world is None or world.reward is None or self.budget_kl is None or "kl" not in history.series:
            return {}
        asked = {name: np.full(self.budget_kl.shape, budget) for budget, name in ATTAINED.items()}
        asked["attained"] = self.budget_kl
        kl, reward = history.series["kl"], history.series["gold_reward"]
        path = sweep(world, world.reward) if self.closed else None
        out = {}
        for name, budget in asked.items():
            if path is None:
                best = best_within(kl, reward, budget)
            else:
                best = best_of_sweep(path, world, world.reward, budget)
                best = np.where(np.isfinite(history.final("kl")), best, np.nan)  # a solution that is none
            out[name] = gained(best, bounds_at(world, world.reward, budget))
        return out

    def win_rates(self, history: History) -> dict[str, Array]:
        """`win_rate` at every budget, where it was sampled along the run."""
        found = history.series.get("win_rate")
        if found is None or "kl" not in history.series:
            return {}
        kl = np.where(np.isfinite(found), history.series["kl"], np.nan)
        return {name: where_reached(kl, budget).of(found) for budget, name in WIN_RATE.items()}

    def reached(self, history: History, heldout: History) -> Mapping[float, Reached]:
        """Budget -> where among the evaluations of held-out pairs the paths first reach it; see `Reached`.

        With s, every log-ratio of π_s shrinks alike, so that whom a closed form ranks right does not depend
        on s: it is read at its end.
        """
        kl = _at_steps(history, heldout, "kl")
        if kl is None:
            return {}
        kl = np.where(heldout.recorded, kl, np.nan)
        return {budget: where_reached(kl, np.inf if self.closed else budget) for budget in BUDGETS}

    def accuracies(self, reached: Mapping[float, Reached], heldout: History) -> dict[str, Array]:
        """Held-out accuracy at every budget, length-controlled where both kinds of pairs are there."""
        plain = heldout.series.get("reward_accuracy")
        if plain is None or not reached:
            return {}
        controlled = heldout.series.get("accuracy_lc")
        values = plain if controlled is None else np.where(np.isfinite(controlled), controlled, plain)
        return {ACCURACY[budget]: where.of(values) for budget, where in reached.items()}


def _at_steps(history: History, other: History, name: str) -> Array | None:
    """A series of one history at the steps of another, NaN where it was not evaluated; None without it."""
    values = history.series.get(name)
    if values is None:
        return None
    place = {step: k for k, step in enumerate(history.steps.tolist())}
    absent = np.full(values.shape[1], np.nan)
    return np.array([values[place[s]] if s in place else absent for s in other.steps.tolist()])
