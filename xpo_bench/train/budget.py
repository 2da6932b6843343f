"""Steps: how a budget is shared among stages, when to evaluate, how the learning rate rises and falls."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from xpo_bench.contract.settings import Budget, Stage


def stage_steps(stages: Sequence[Stage], steps: int) -> list[int]:
    """Whole steps per stage that sum to `steps`, by rounding the cumulative fractions."""
    total = sum(stage.share for stage in stages)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares of an algorithm's stages must sum to 1, got {total:g}")
    ends, reached = [0], 0.0
    for stage in stages:
        reached += stage.share
        # rounded ends, not rounded lengths: errors do not add up, and the last end is `steps`
        ends.append(round(reached * steps))
    return [after - before for before, after in pairwise(ends)]


def in_batches(budget: Budget, rows: int) -> bool:
    """Whether a step takes a part of that many rows."""
    return budget.sampling == "replacement" or budget.batch_tokens > 0 or budget.batch_size < rows


def evaluation_steps(steps: int) -> list[int]:
    """Steps 0, 1, 2, 5, 10, 20, 50, ..., every twentieth of the run, and the last."""
    points = {0, steps} | {round(k * steps / 20) for k in range(21)}
    decade = 1
    while decade <= steps:
        points |= {m * decade for m in (1, 2, 5) if m * decade <= steps}
        decade *= 10
    return sorted(points)


def rate_scale(step: int, steps: int, warmup: float, anneal: float = 0.0) -> float:
    """Factor on the learning rate at a stage's step (0-based): linear warm-up, constant, then linear to 0."""
    rise, fall = warmup * steps, anneal * steps
    up = (step + 1) / rise if rise > 0 else 1.0
    down = (steps - step) / fall if fall > 0 else 1.0
    return min(1.0, up, down)
