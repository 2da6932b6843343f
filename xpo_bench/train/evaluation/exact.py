"""A language model on a world whose completions can all be listed: its distribution is then exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpo_bench.contract.examples import Completion, Dataset, World
from xpo_bench.contract.metric import Array, WorldEvaluation
from xpo_bench.errors import DataError

WHOLE = 1e-3
"""How far from 1 the probabilities of all completions may sum, which float32 scores of some thousands of them
do not reach.
"""
LISTED = 4096
"""Entries of the final policy that a record takes at most."""


def exhaustive(dataset: Dataset) -> World | None:
    """The data set's world when it lists every completion that a model can write, else None."""
    world = dataset.world
    return world if world is not None and world.exhaustive else None


def longest(policy: Any, dataset: Dataset, at_most: int) -> int:
    """Tokens that a sample may have: on a world that lists every completion, those of the longest one, else
    `at_most`.
    """
    world = exhaustive(dataset)
    if world is None:
        return at_most
    prompt = next(iter(world.actions))
    listed = policy.encode([Completion(prompt, text) for text in world.actions[prompt]])
    return int(max(row.tail for row in listed.rows))


class Enumerated:
    """All completions of the prompts of a world, scored in batches: KL, entropy and rewards without sampling.

    Args:
        policy: a language model at the task's initial distribution. dataset: with an exhaustive world.

    Raises:
        DataError: the world's completions are not all that the model can write, so their probabilities do not
        sum to 1.
    """

    def __init__(self, policy: Any, dataset: Dataset, world: World) -> None:
        self.policy, self.world = policy, world
        used = {e.prompt for e in dataset.train}
        self.prompts = [prompt for prompt in world.actions if prompt in used]
        self.sizes = [len(world.actions[prompt]) for prompt in self.prompts]
        self.encoded = policy.encode(
            [Completion(prompt, text) for prompt in self.prompts for text in world.actions[prompt]]
        )
        self.mask = np.arange(max(self.sizes)) < np.array(self.sizes)[:, None]
        self.reward: Array | None = None
        if world.reward:
            self.reward = np.zeros(self.mask.shape)
            for p, prompt in enumerate(self.prompts):
                self.reward[p, : self.sizes[p]] = [
                    world.reward[prompt][text] for text in world.actions[prompt]
                ]
        self.reference = self._logp()
        for prompt, total in zip(self.prompts, np.exp(self.reference).sum(-1), strict=True):
            if abs(total - 1) > WHOLE:
                raise DataError(
                    f"the completions listed for prompt {prompt!r} have probability {total:.4f} under the model, not 1: "
                    "an exhaustive world lists every completion up to its length, once"
                )

    def _logp(self) -> Array:
        """log π of every completion, normalised, −inf on absent ones, shape (P, A)."""
        flat = self.policy.score_all(self.encoded).sum[0].double().cpu().numpy()
        out = np.full(self.mask.shape, -np.inf)
        out[self.mask] = flat
        return out

    def evaluation(self) -> WorldEvaluation:
        """The exact distributions of the policy as it stands."""
        logp = self._logp()
        total = np.logaddexp.reduce(logp, axis=-1, keepdims=True)  # rounding of float32 scores, some 1e-6
        reference = self.reference - np.logaddexp.reduce(self.reference, axis=-1, keepdims=True)
        return WorldEvaluation(
            logp=(logp - total)[None],
            ref_logp=reference,
            mask=self.mask,
            reward=self.reward,
            prompt_weight=np.full((1, len(self.prompts)), 1 / len(self.prompts)),
        )

    def final_policy(self) -> dict[str, dict[str, float]] | None:
        """{prompt: {completion: probability}}, or None beyond 4,096 entries."""
        if sum(self.sizes) > LISTED:
            return None
        probabilities = np.exp(self.evaluation().logp[0])
        return {
            prompt: dict(zip(self.world.actions[prompt], row[:size].tolist(), strict=True))
            for prompt, size, row in zip(self.prompts, self.sizes, probabilities, strict=True)
        }
