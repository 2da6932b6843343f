"""What an algorithm's step costs against a plain loop on the same rows, measured along the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xpo_bench.metrics.throughput import overhead
from xpo_bench.policy.base import Model, Request
from xpo_bench.policy.language.plain import plain_losses
from xpo_bench.train.clock import Clock

COMPARISONS = 8
"""Steps at which the two are compared, at most; the first step, which warms caches up, is never one."""


class PlainLoop:
    """Supervised steps as a plain loop makes them, interleaved with steps of the algorithm; the policy stays
    as it is.

    The loop feeds the rows that the algorithm scores with a graph, padded to a rectangle, takes their
    log-probabilities from the logits, and follows the gradient of the sum. Its update is the one of the
    algorithm's own step, without clipping.

    Attributes:
        points: steps done after which to compare.
    """

    def __init__(self, policy: Model, steps: int) -> None:
        self.policy = policy
        self.points = {round(k * steps / COMPARISONS) for k in range(1, COMPARISONS + 1)} - {0, 1}
        self.step_s: list[float] = []
        self.plain_s: list[float] = []

    def measure(self, step_s: float, update_s: float, requests: Sequence[Mapping[str, Request]]) -> None:
        """Time one plain step; off the training clock.

        Args:
            step_s: seconds of the algorithm's step, sampling included. update_s: of its optimizer update.
            requests: what `policy.score` is asked for with a graph, per micro-batch.
        """
        losses = [loss for request in requests for loss in plain_losses(self.policy.scorer, request)]
        # a clock of its own: the run's would charge the cell for a step that is not its own
        clock = Clock(str(self.policy.device))
        with clock.charge("train_s"):
            for loss in losses:
                self.policy.gradients(loss())
        self.step_s.append(step_s)
        self.plain_s.append(clock.train_s + update_s)

    def ratio(self) -> float | None:
        """The metric `overhead`."""
        return overhead(self.step_s, self.plain_s)
