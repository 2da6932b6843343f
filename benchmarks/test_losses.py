"""What every loss costs by itself: forward and backward over scores that are there, 1,024 rows, one thread.

    pytest benchmarks/test_losses.py

The rows are those that the conformance kit shows an algorithm, repeated; nothing is scored, so that this is
the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from xpo_bench import Algorithm, Scores, Step, plugins
from xpo_bench.testing.steps import leaves, make_step, pick, size, with_totals
from xpo_bench.train.update import per_example

ROWS = 1024


def losses() -> list[type[Algorithm]]:
    """The built-in algorithms that have a loss; one that is solved in closed form has none."""
    return [cls for cls, _ in plugins.load().algorithms.values() if cls.loss is not Algorithm.loss]


def repeated(step: Step) -> Step:
    """The rows of a step over and over, up to ROWS, with leaves of their own."""
    many = pick(step, torch.arange(ROWS) % size(step))

    def leaf(scores: Scores, asks: bool) -> Scores:
        return Scores(scores.token_logps.detach().clone().requires_grad_(asks), scores.mask)

    policy = {
        name: leaf(scores, step.policy[name].token_logps.requires_grad)
        for name, scores in many.policy.items()
    }
    return with_totals(replace(many, policy=policy))


@pytest.mark.parametrize("cls", losses(), ids=lambda cls: cls.name)
def test_a_loss(benchmark: Callable[..., Any], cls: type[Algorithm]) -> None:
    torch.set_num_threads(1)
    algorithm = cls()
    step = repeated(make_step(algorithm))

    def once() -> None:
        fresh = replace(
            step, policy={name: Scores(s.token_logps, s.mask) for name, s in step.policy.items()}
        )  # nothing derived yet
        torch.autograd.grad(per_example(algorithm, fresh, True).sum(), leaves(fresh), allow_unused=True)

    benchmark(once)
