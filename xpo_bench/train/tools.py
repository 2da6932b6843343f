"""The tools an algorithm may use to shape its data: one instance per cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpo_bench.contract.examples import Completion, Example, Pair
from xpo_bench.contract.settings import Budget
from xpo_bench.errors import CapacityError, DataError
from xpo_bench.policy.base import Policy

Fit = Callable[[Sequence[Pair], float], Any]


class CellTools:
    """`xpo_bench.contract.examples.Tools` for run number `run` of a policy."""

    def __init__(
        self,
        policy: Policy,
        run: int,
        initial: Any,
        rng: np.random.Generator,
        budget: Budget,
        heldout: Sequence[Example] = (),
        truncate: str = "prompt",
        max_new_tokens: int | None = None,
    ) -> None:
        self.policy, self.run, self.initial, self.rng = policy, run, initial, rng
        self.budget, self.heldout, self.truncate = budget, heldout, truncate
        self.max_new_tokens = max_new_tokens or budget.max_new_tokens
        self.rows = budget.steps * budget.batch_size
        self.examples: Sequence[Example] = ()
        self.noted: dict[str, float] = {}
        self._fits: dict[tuple[Fit, int, float], tuple[Sequence[Pair], Any]] = {}

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        """Independent completions from the current policy."""
        self._need("generate")
        drawn: list[list[Completion]] = self.policy.generate(  # type: ignore[attr-defined]
            self.run, prompts, samples, self.rng, temperature, top_k, self.max_new_tokens
        )
        return drawn

    def logps(
        self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False
    ) -> list[float]:
        """Log-probabilities under the current policy, or under the task's initial one."""
        encoded = self.policy.stack([self.policy.encode(completions, self.truncate)])
        if reference:
            current = self.policy.snapshot()
            self.policy.restore(self.initial)
        scores = self.policy.score_all(encoded, runs=slice(self.run, self.run + 1))
        if reference:
            self.policy.restore(current)
        empty = int((scores.length[0] == 0).sum())
        if empty:
            raise DataError(f"{empty} of {len(completions)} completions have no token within the context")
        return [float(v) for v in (scores.mean if average else scores.sum)[0].tolist()]

    def fit_reward(
        self, pairs: Sequence[Pair], weight_decay: float
    ) -> Callable[[Sequence[Completion]], list[float]]:
        """The Bradley–Terry reward model of these pairs; fitted once per data set and decay."""
        from xpo_bench.policy.reward_model import fit_table

        fitted: Callable[[Sequence[Completion]], list[float]]
        fitted = self._fit(fit_table if self.policy.enumerable else self._fit_head, pairs, weight_decay)
        return fitted

    def _fit_head(
        self, pairs: Sequence[Pair], weight_decay: float
    ) -> Callable[[Sequence[Completion]], list[float]]:
        """A reward head on the initial policy; its accuracy on training and held-out pairs is noted."""
        from xpo_bench.policy.reward_model import accuracy, fit_head

        describe = self.policy.describe_completions  # type: ignore[attr-defined]
        reward = fit_head(lambda items: describe(items, self.initial, self.truncate), pairs, weight_decay)
        self.note("reward_accuracy_train", accuracy(reward, pairs[: self.budget.heldout_pairs]))
        heldout = [e for e in self.heldout if isinstance(e, Pair) and e.p_chosen != 0.5][
            : self.budget.heldout_pairs
        ]
        if heldout:
            self.note("reward_accuracy_heldout", accuracy(reward, heldout))
        return reward

    def fit_ranker(
        self, pairs: Sequence[Pair], weight_decay: float
    ) -> Callable[[Sequence[Completion], Sequence[Completion]], list[float]]:
        """The pairwise ranker of these pairs; fitted once per data set and decay."""
        from xpo_bench.policy.reward_model import fit_ranker

        self._need("enumerable")
        fitted: Callable[[Sequence[Completion], Sequence[Completion]], list[float]] = self._fit(
            fit_ranker, pairs, weight_decay
        )
        return fitted

    def _fit(self, fit: Fit, pairs: Sequence[Pair], weight_decay: float) -> Any:
        self._need("reward")
        key = (fit, id(pairs), float(weight_decay))
        if key not in self._fits:  # the cache keeps `pairs` alive, so its id stays its own
            self._fits[key] = (pairs, fit(pairs, float(weight_decay)))
        return self._fits[key][1]

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt on an enumerable world."""
        self._need("enumerable")
        return self.policy.actions(prompt)  # type: ignore[attr-defined, no-any-return]

    def note(self, name: str, value: float) -> None:
        """Keep a number for the record."""
        self.noted[name] = float(value)

    def _need(self, ability: str) -> None:
        if ability not in self.policy.abilities:
            raise CapacityError(
                f"this policy cannot {ability}; declare requires = frozenset({{{ability!r}}}) so that the cell is not planned"
            )
