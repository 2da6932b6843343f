"""The tools an algorithm may use to shape its data: one instance per cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from xpo_bench.contract.algorithm import Ranker, RewardModel
from xpo_bench.contract.examples import Completion, Dataset, Example, Pair, World
from xpo_bench.contract.settings import Budget
from xpo_bench.errors import CapacityError, DataError
from xpo_bench.policy.base import Enumeration, Features, Generation, Policy, Snapshot, Tangent
from xpo_bench.train import truth
from xpo_bench.train.evaluation.exact import longest
from xpo_bench.train.reference import standing_at

Fitted = TypeVar("Fitted")


class CellTools:
    """`xpo_bench.contract.algorithm.Tools` for run number `run` of a policy."""

    def __init__(
        self,
        policy: Policy,
        run: int,
        initial: Snapshot,
        rng: np.random.Generator,
        budget: Budget,
        heldout: Sequence[Example] = (),
        truncate: str = "prompt",
        listed: World | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        self.policy, self.run, self.initial, self.rng = policy, run, initial, rng
        self.budget, self.heldout, self.truncate = budget, heldout, truncate
        self.listed = listed
        self.dataset = dataset or Dataset(train=())
        self.rows = budget.steps * budget.batch_size
        self.examples: Sequence[Example] = ()
        self.noted: dict[str, float] = {}
        self._fits: dict[tuple[str, int, float], tuple[Sequence[Pair], object]] = {}

    @cached_property
    def max_new_tokens(self) -> int:
        """Tokens of a sample at most; worked out for those that sample, since a world may list thousands."""
        return self.budget.max_new_tokens if self.listed is None else longest(self.policy, self.listed)

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        """Independent completions from the current policy."""
        policy = self._need("generate")
        assert isinstance(policy, Generation)
        return policy.generate(self.run, prompts, samples, self.rng, temperature, top_k, self.max_new_tokens)

    def logps(
        self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False
    ) -> list[float]:
        """Log-probabilities under the current policy, or under the task's initial one."""
        encoded = self.policy.stack([self.policy.encode(completions, self.truncate)])
        runs = slice(self.run, self.run + 1)
        with standing_at(self.policy, self.initial) if reference else nullcontext():
            scores = self.policy.score_all(encoded, runs=runs)
        empty = int((scores.length[0] == 0).sum())
        if empty:
            raise DataError(f"{empty} of {len(completions)} completions have no token within the context")
        return [float(v) for v in (scores.mean if average else scores.sum)[0].tolist()]

    # ---------------------------------------------------------------- fits

    def fit_reward(self, pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
        """The Bradley–Terry reward model of these pairs; fitted once per data set and decay."""
        from xpo_bench.policy.reward_model import fit_table

        policy = self._need("reward")
        if isinstance(policy, Features):
            return self._fitted(self._fit_head, "head", pairs, weight_decay)
        return self._fitted(fit_table, "table", pairs, weight_decay)

    def _fit_head(self, pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
        """A reward head on the initial policy; its accuracy on training and held-out pairs is noted."""
        from xpo_bench.policy.reward_model import accuracy, fit_head

        policy = self.policy
        assert isinstance(policy, Features)
        describe = policy.describe_completions
        reward = fit_head(lambda items: describe(items, self.initial, self.truncate), pairs, weight_decay)
        most = self.budget.heldout_pairs
        self.note("reward_accuracy_train", accuracy(reward, pairs[:most]))
        heldout = [e for e in self.heldout if isinstance(e, Pair) and e.p_chosen != 0.5][:most]
        if heldout:
            self.note("reward_accuracy_heldout", accuracy(reward, heldout))
        return reward

    def fit_ranker(self, pairs: Sequence[Pair], weight_decay: float) -> Ranker:
        """The pairwise ranker of these pairs; fitted once per data set and decay."""
        from xpo_bench.policy.reward_model import fit_ranker

        self._need("enumerable")
        self._need("reward")
        return self._fitted(fit_ranker, "ranker", pairs, weight_decay)

    def fit_tangent(self, reward: RewardModel, prompts: Sequence[str]) -> RewardModel:
        """The part of a reward that the policy's parameters express to first order at the current policy."""
        policy = self._need("tangent")
        assert isinstance(policy, Tangent)
        counts = Counter(prompts)
        actions = {prompt: policy.actions(prompt) for prompt in counts}
        values = {prompt: reward(of_prompt) for prompt, of_prompt in actions.items()}
        found = policy.tangent(self.run, values, counts)
        fitted = {
            completion: value
            for prompt, of_prompt in actions.items()
            for completion, value in zip(of_prompt, found[prompt], strict=True)
        }
        return lambda completions: [fitted[c] for c in completions]

    def _fitted(
        self,
        fit: Callable[[Sequence[Pair], float], Fitted],
        kind: str,
        pairs: Sequence[Pair],
        weight_decay: float,
    ) -> Fitted:
        key = (kind, id(pairs), float(weight_decay))
        if key not in self._fits:  # the cache keeps `pairs` alive, so its id stays its own
            self._fits[key] = (pairs, fit(pairs, float(weight_decay)))
        return cast(Fitted, self._fits[key][1])  # of this kind, since the key names it

    # ---------------------------------------------------------------- the truth

    def true_reward(self) -> RewardModel:
        """The reward that the task states.

        Raises:
            CapacityError: it states none.
        """
        return truth.true_reward(self.dataset)

    def true_preference(self) -> Ranker:
        """The preference that the task states, or that of its true reward.

        Raises:
            CapacityError: it states neither.
        """
        return truth.true_preference(self.dataset)

    # ---------------------------------------------------------------- the rest

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt on an enumerable world."""
        policy = self._need("enumerable")
        assert isinstance(policy, Enumeration)
        return policy.actions(prompt)

    def note(self, name: str, value: float) -> None:
        """Keep a number for the record."""
        self.noted[name] = float(value)

    def _need(self, ability: str) -> Policy:
        """The policy, which has the ability.

        Raises:
            CapacityError: it has not.
        """
        if ability not in self.policy.abilities:
            raise CapacityError(
                f"this policy cannot {ability}; declare requires = frozenset({{{ability!r}}}) "
                "so that the cell is not planned"
            )
        return self.policy
