"""The reference policy of a stage: the task's initial policy, or the one that the stage began with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import Stage
from xpo_bench.policy.base import Enumeration, Gradients, Policy, Snapshot, Stacked

Scorer: TypeAlias = Callable[[Sequence[Sequence[Completion]], Stacked, "Tensor | None"], Scores]
"""(completions per run, the same stacked, rows that are used) -> their scores under a reference policy."""


def claims_preference(algorithm: Algorithm) -> bool:
    """Whether the algorithm defines an implied preference."""
    return type(algorithm).implied_preference is not Algorithm.implied_preference


@contextmanager
def standing_at(policy: Policy, state: Snapshot) -> Iterator[None]:
    """Compute with the parameters of a snapshot for a while."""
    if isinstance(policy, Gradients):  # one model swaps its weights without copying them
        with policy.using(state):
            yield
        return
    current = policy.snapshot()
    policy.restore(state)
    try:
        yield
    finally:
        policy.restore(current)


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
        self.moved = False
        self.state: Snapshot | None = None
        self.table: Tensor | None = None

    def begin(self, stage: Stage, algorithms: Sequence[Algorithm], moved: bool) -> None:
        """A stage begins; where its reference has `moved`, that is the policy as it stands now."""
        self.moved, self.state, self.table = moved, None, None
        if not moved:
            return
        groups = [group for algorithm in algorithms for group in algorithm.groups.values()]
        if stage.refresh is not None or any(group.token_kl for group in groups):
            self.state = self.policy.snapshot()
        if isinstance(self.policy, Enumeration) and any(group.mismatched for group in groups):
            self.table = self.policy.log_probs()

    def scorer(self, runs: slice, first: bool) -> Scorer:
        """Scores under a reference that has moved; `first`: the policy stands there, the stage begins."""

        def score(
            completions: Sequence[Sequence[Completion]], stacked: Stacked, used: Tensor | None
        ) -> Scores:
            if first:
                return self.policy.score_all(stacked, used, runs=runs)
            assert self.state is not None
            with standing_at(self.policy, self.state):
                return self.policy.score_all(stacked, used, runs=runs)

        return score
