"""The reference policy of a stage: the task's initial policy, or the one that the stage began with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import Stage
from xpo_bench.policy.base import Policy

ReferenceScorer = Callable[[Sequence[Sequence[Completion]], Any, "Tensor | None"], Scores]


def claims_preference(algorithm: Algorithm) -> bool:
    """Whether the algorithm defines an implied preference."""
    return type(algorithm).implied_preference is not Algorithm.implied_preference


class StageReference:
    """What the log-ratios of the stage at hand are against.

    Attributes:
        moved: whether it is another policy than the task's initial one.
        state: a snapshot of it where the stage comes back to it after steps (new data at a refresh,
            `token_kl`), else None.
        table: its log-probabilities, shape (runs, P, A), where losses are given `Step.exact_kl`, else None.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.moved, self.state, self.table = False, None, None

    def begin(self, stage: Stage, algorithms: Sequence[Algorithm], moved: bool) -> None:
        """A stage begins; where its reference has `moved`, that is the policy as it stands now."""
        self.moved, self.state, self.table = moved, None, None
        if not moved:
            return
        groups = [group for algorithm in algorithms for group in algorithm.groups.values()]
        if stage.refresh is not None or any(group.token_kl for group in groups):
            self.state = self.policy.snapshot()
        if self.policy.enumerable and any(group.mismatched for group in groups):
            self.table = self.policy.log_probs()  # type: ignore[attr-defined]

    def scorer(self, runs: slice, first: bool) -> ReferenceScorer:
        """Scores under a reference that has moved; `first`: no step of the stage has been made, the policy
        stands there.
        """

        def score(completions: Sequence[Sequence[Completion]], stacked: Any, used: Tensor | None) -> Scores:
            if first:
                return self.policy.score_all(stacked, used, runs=runs)
            with self._there():
                return self.policy.score_all(stacked, used, runs=runs)

        return score

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Compute with the parameters of the stage's start for a while."""
        assert self.state is not None
        if not self.policy.stacked:
            with self.policy.using(self.state):
                yield
            return
        current = self.policy.snapshot()
        self.policy.restore(self.state)
        try:
            yield
        finally:
            self.policy.restore(current)
