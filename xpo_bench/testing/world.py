"""The small world on which algorithms are checked, and policies whose scores are known in advance.

Eight prompts with four completions each, of one to five tokens; twelve pairs that a reward decides. Nothing
here comes from global random state: a policy's log-probabilities are drawn from a stream that the completion
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from xpo_bench.contract.algorithm import Ranker, RewardModel
from xpo_bench.contract.examples import Completion, Example, Pair, World
from xpo_bench.policy.reward_model import fit_ranker, fit_table
from xpo_bench.random_streams import stream

NAME = "conformance"
LENGTHS = (1, 2, 3, 5)
"""Tokens of a prompt's completions; which of them is how good changes from prompt to prompt."""


def _world() -> World:
    actions = {
        f"p{i}": tuple(" ".join([letter] * LENGTHS[(k + i) % 4]) for k, letter in enumerate("abcd"))
        for i in range(8)
    }
    return World(
        actions=actions,
        reference={
            prompt: dict(zip(texts, (0.4, 0.3, 0.2, 0.1), strict=True)) for prompt, texts in actions.items()
        },
        reward={prompt: {text: 0.5 * k for k, text in enumerate(texts)} for prompt, texts in actions.items()},
    )


WORLD = _world()
_CHOICES = ((3, 0), (2, 1), (1, 0), (3, 2), (2, 0), (3, 1), (3, 0), (1, 0), (2, 1), (3, 2), (2, 0), (3, 1))
PAIRS: tuple[Pair, ...] = tuple(
    Pair(prompt, WORLD.actions[prompt][chosen], WORLD.actions[prompt][rejected])
    for prompt, (chosen, rejected) in zip([f"p{i % 8}" for i in range(12)], _CHOICES, strict=True)
)


class TextPolicy(Protocol):
    """Token log-probabilities of any completion."""

    def tokens(self, completion: Completion, *, rising: bool = False) -> np.ndarray:
        """Nats, one per token; `rising`: none below the reference, so that an estimated KL is above zero."""
        ...


def length(completion: Completion) -> int:
    """Tokens of a completion: its words."""
    return max(1, len(completion.text.split()))


@dataclass(frozen=True)
class Drifted:
    """A policy with token log-probabilities within ± `drift` nats of the reference, which has drift 0."""

    drift: float = 0.9
    seed: int = 0

    def tokens(self, completion: Completion, *, rising: bool = False) -> np.ndarray:
        return _drifted(self.drift, self.seed, completion, rising)


@lru_cache(maxsize=4096)
def _drifted(drift: float, seed: int, completion: Completion, rising: bool) -> np.ndarray:
    n = length(completion)
    reference = stream(0, NAME, "data", completion.prompt, completion.text)
    own = stream(seed, NAME, "init", completion.prompt, completion.text)
    away = drift * (2 * own.random(n) - 1)
    # reference tokens lie in [−3, −1] nats; a log-probability has to stay below 0
    return np.minimum(2 * reference.random(n) - 3 + (np.abs(away) if rising else away), -1e-3)


REFERENCE = Drifted(0.0)


@dataclass(frozen=True)
class Level:
    """A policy that gives every completion the same log-probability, `nats` in total."""

    nats: float

    def tokens(self, completion: Completion, *, rising: bool = False) -> np.ndarray:
        return np.full(length(completion), self.nats / length(completion))


class KitTools:
    """`xpo_bench.contract.algorithm.Tools` over a current and a reference policy of the small world."""

    def __init__(
        self, current: TextPolicy, reference: TextPolicy, examples: Sequence[Example], rows: int
    ) -> None:
        self.current, self.reference = current, reference
        self.rng = np.random.default_rng(0)
        self.examples = examples
        self.rows = rows
        self.notes: dict[str, float] = {}

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        drawn = []
        for prompt in prompts:
            actions = self.actions(prompt)
            logits = np.array(self.logps(actions)) / temperature
            if top_k:
                # top-k: those below the k-th largest get probability 0, ties with it stay
                logits = np.where(logits >= np.sort(logits)[-min(top_k, len(actions))], logits, -np.inf)
            p = np.exp(logits - logits.max())
            drawn.append([actions[i] for i in self.rng.choice(len(actions), samples, p=p / p.sum())])
        return drawn

    def logps(
        self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False
    ) -> list[float]:
        policy = self.reference if reference else self.current
        tokens = [policy.tokens(c) for c in completions]
        return [float(t.mean() if average else t.sum()) for t in tokens]

    def fit_reward(self, pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
        return fit_table(pairs, float(weight_decay))

    def fit_ranker(self, pairs: Sequence[Pair], weight_decay: float) -> Ranker:
        return fit_ranker(pairs, float(weight_decay))

    def true_reward(self) -> RewardModel:
        return lambda completions: [WORLD.reward[c.prompt][c.text] for c in completions]

    def true_preference(self) -> Ranker:
        reward = self.true_reward()
        return lambda first, second: [a - b for a, b in zip(reward(first), reward(second), strict=True)]

    def fit_tangent(self, reward: RewardModel, prompts: Sequence[str]) -> RewardModel:
        """The regression on the length, as if the policies' one parameter were a tilt towards long texts."""
        actions = [action for prompt in prompts for action in self.actions(prompt)]
        logps = np.reshape(self.logps(actions), (len(prompts), -1))
        p = np.exp(logps - logps.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)

        def centred(values: Sequence[float]) -> np.ndarray:
            table = np.reshape(values, p.shape)
            return np.asarray(table - (p * table).sum(1, keepdims=True))

        lengths = centred([length(action) for action in actions])
        slope = float((p * lengths * centred(reward(actions))).sum() / (p * lengths**2).sum())
        return lambda completions: [slope * length(c) for c in completions]

    def actions(self, prompt: str) -> list[Completion]:
        return [Completion(prompt, text) for text in WORLD.actions[prompt]]

    def note(self, name: str, value: float) -> None:
        self.notes[name] = float(value)
