"""What a task states about its own completions: rewards and preferences that no data determined."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpo_bench.contract.algorithm import Ranker, RewardModel
from xpo_bench.contract.examples import Completion, Dataset, World
from xpo_bench.data.preferences import preference
from xpo_bench.errors import CapacityError, DataError

CERTAIN = 1e-12
"""Log-odds of a stated preference are taken at probabilities this far from 0 and 1 at most."""


def true_reward(dataset: Dataset) -> RewardModel:
    """The reward that the task states: of the world's actions, or of any text where it judges text.

    Raises:
        CapacityError: it states none; that of the returned function, it states none of this completion.
    """
    world, gold = dataset.world, dataset.gold
    if world is not None and world.reward:
        stated = world.reward

        def reward(completions: Sequence[Completion]) -> list[float]:
            try:
                return [float(stated[c.prompt][c.text]) for c in completions]
            except KeyError as missing:
                raise CapacityError(f"the task states no true reward of {missing.args[0]!r}") from None

        return reward
    if gold is not None:
        return lambda completions: [float(gold(c)) for c in completions]
    raise CapacityError("the task states no true reward; ask for the fitted one")


def true_preference(dataset: Dataset) -> Ranker:
    """The log-odds that the task states; where it states rewards alone, their differences (Bradley–Terry).

    Raises:
        CapacityError: it states neither.
    """
    world = dataset.world
    if world is not None and world.preference:
        return lambda first, second: [_log_odds(world, a, b) for a, b in zip(first, second, strict=True)]
    if dataset.gold is None and (world is None or not world.reward):
        raise CapacityError("the task states no true preference; ask for the fitted one")
    reward = true_reward(dataset)
    return lambda first, second: [a - b for a, b in zip(reward(first), reward(second), strict=True)]


def _log_odds(world: World, a: Completion, b: Completion) -> float:
    try:
        p = preference(world, a.prompt, a.text, b.text)
    except (DataError, KeyError):
        raise CapacityError(f"the task states no true preference of {a.text!r} and {b.text!r}") from None
    p = min(max(p, CERTAIN), 1 - CERTAIN)
    return math.log(p / (1 - p))
