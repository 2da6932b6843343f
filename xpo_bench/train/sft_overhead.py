"""What an algorithm's step costs against an SFT step on the same tokens, measured along the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from xpo_bench.metrics.throughput import overhead
from xpo_bench.policy.base import Model, Request
from xpo_bench.train.clock import Clock

COMPARISONS = 8
"""Steps at which the two are compared, at most; the first step, which warms caches up, is never one."""


class SFTOverhead:
    """SFT steps interleaved with steps of the algorithm, which leave the policy as it is.

    An SFT step scores the completions that the algorithm scores with a graph and follows the gradient of
    their mean log-probability per token. It makes no update: that of the algorithm's own step, which is the
    same, stands in for it.

    Attributes:
        points: steps done after which to compare.
    """

    def __init__(self, policy: Model, steps: int) -> None:
        self.policy = policy
        self.points = {round(k * steps / COMPARISONS) for k in range(1, COMPARISONS + 1)} - {0, 1}
        self.step_s: list[float] = []
        self.sft_s: list[float] = []

    def measure(self, step_s: float, update_s: float, requests: Sequence[Mapping[str, Request]]) -> None:
        """Time one SFT step; off the training clock.

        Args:
            step_s: seconds of the algorithm's step, sampling included. update_s: of its optimizer update.
            requests: what `policy.score` is asked for with a graph, per micro-batch.
        """
        # a clock of its own: the run's would charge the cell for a step that is not its own
        clock = Clock(str(self.policy.device))
        with clock.charge("train_s"):
            for request in requests:
                self.policy.begin()
                scores = self.policy.score(request, grad=True)
                loss = -torch.stack([group.mean.mean() for group in scores.values()]).mean()
                self.policy.gradients(loss)
        self.step_s.append(step_s)
        self.sft_s.append(clock.train_s + update_s)

    def ratio(self) -> float | None:
        """The metric `overhead`."""
        return overhead(self.step_s, self.sft_s)
