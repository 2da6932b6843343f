"""Exact distributions: of tables, and of a language model on a world whose completions can all be listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Dataset, Example, Pair, World
from xpo_bench.contract.metric import Array, Mask, WorldEvaluation
from xpo_bench.data.preferences import preference_matrix
from xpo_bench.errors import DataError
from xpo_bench.policy.base import Enumeration, Scoring

FinalPolicy: TypeAlias = dict[str, dict[str, float]]
"""{prompt: {completion: probability}}."""

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


def longest(policy: Scoring, world: World) -> int:
    """Tokens of the longest completion that a world lists, and so of any sample there."""
    texts = dict.fromkeys(text for listed in world.actions.values() for text in listed)
    prompt = next(iter(world.actions))
    return int(max(row.tail for row in policy.encode([Completion(prompt, text) for text in texts]).rows))


class Enumerated:
    """All completions of the prompts of a world, scored in batches: KL, entropy and rewards without sampling.

    Args:
        policy: a language model at the task's initial distribution. dataset: with an exhaustive world.

    Raises:
        DataError: the world's completions are not all that the model can write: their probabilities do not
            sum to 1.
    """

    def __init__(self, policy: Scoring, dataset: Dataset, world: World) -> None:
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
        self.preference = preference_matrix(world, self.prompts)
        self.reference = self._logp()
        for prompt, total in zip(self.prompts, np.exp(self.reference).sum(-1), strict=True):
            if abs(total - 1) > WHOLE:
                raise DataError(
                    f"the completions listed for prompt {prompt!r} have probability {total:.4f} under the "
                    "model, not 1: an exhaustive world lists every completion up to its length, once"
                )

    def _logp(self) -> Array:
        """log π of every completion, normalised, −inf on absent ones, shape (P, A)."""
        flat = self.policy.score_all(self.encoded).sum[0].double().cpu().numpy()
        out = np.full(self.mask.shape, -np.inf)
        out[self.mask] = flat
        return out

    def evaluation(self) -> WorldEvaluation:
        """The exact distributions of the policy as it stands."""
        # float32 scores are rounded by some 1e-6, and their exponents do not sum to 1: log π − log Σ π does
        logp = self._logp()
        total = np.logaddexp.reduce(logp, axis=-1, keepdims=True)
        reference = self.reference - np.logaddexp.reduce(self.reference, axis=-1, keepdims=True)
        return WorldEvaluation(
            logp=(logp - total)[None],
            ref_logp=reference,
            mask=self.mask,
            reward=self.reward,
            prompt_weight=np.full((1, len(self.prompts)), 1 / len(self.prompts)),
            preference=self.preference,
        )

    def final_policy(self, run: int) -> FinalPolicy | None:
        """The distribution of the one run, or None beyond `LISTED` entries."""
        if sum(self.sizes) > LISTED:
            return None
        probabilities = np.exp(self.evaluation().logp[0])
        return {
            prompt: dict(zip(self.world.actions[prompt], row[:size].tolist(), strict=True))
            for prompt, size, row in zip(self.prompts, self.sizes, probabilities, strict=True)
        }


class Tables:
    """The distributions of a table of every run.

    Args:
        rows: what each run trains on: its prompts count, and its completions are the ones that were seen.
    """

    def __init__(self, policy: Enumeration, rows: Sequence[Sequence[Example]]) -> None:
        self.policy = policy
        self.prompt_weight = prompt_weights(policy, rows)
        self.seen = seen_actions(policy, rows)
        self.preference = preference_matrix(policy.layout.world, policy.layout.prompts)
        lengths = policy.layout.lengths
        self.lengths = None if lengths is None else lengths.astype(np.float64)

    def evaluation(self) -> WorldEvaluation:
        """The exact distributions of the policies as they stand."""
        layout, found = self.policy.layout, self.policy.log_probs()
        logp = array(found)
        if found.dtype != torch.float64:
            # rounded logarithms are those of no distribution, and KL and rewards want one: log π − log Σ π
            logp = logp - np.logaddexp.reduce(logp, axis=-1, keepdims=True)
        return WorldEvaluation(
            logp=logp,
            ref_logp=layout.log_reference,
            mask=layout.mask,
            reward=layout.reward,
            prompt_weight=self.prompt_weight,
            seen=self.seen,
            preference=self.preference,
            lengths=self.lengths,
        )

    def final_policy(self, run: int) -> FinalPolicy | None:
        """The distribution of one run, or None where it is too large for a record."""
        return self.policy.final_policy(run)


def array(values: Tensor) -> Array:
    """A float64 copy on the host."""
    return values.detach().to("cpu", torch.float64).numpy()


def prompt_weights(policy: Enumeration, rows: Sequence[Sequence[Example]]) -> Array:
    """Uniform weight on the prompts that each run's training rows contain, shape (runs, P)."""
    place = {prompt: i for i, prompt in enumerate(policy.layout.prompts)}
    weights = np.zeros((len(rows), len(place)))
    for run, examples in enumerate(rows):
        used = {place[e.prompt] for e in examples}
        weights[run, list(used)] = 1.0 / len(used)
    return weights


def seen_actions(policy: Enumeration, rows: Sequence[Sequence[Example]]) -> Mask:
    """Actions that each run's training rows contain, shape (runs, P, A), bool."""
    layout = policy.layout
    known: dict[int, Mask] = {}
    for examples in rows:  # runs of one seed share their rows
        if id(examples) not in known:
            flat = np.zeros(layout.mask.size, dtype=bool)
            texts = (
                (e.prompt, t)
                for e in {id(e): e for e in examples}.values()  # few objects, many times each
                for t in ((e.chosen, e.rejected) if isinstance(e, Pair) else (e.completion,))
            )
            flat[[layout.position[key] for key in texts]] = True
            known[id(examples)] = flat.reshape(layout.mask.shape)
    return np.stack([known[id(examples)] for examples in rows])
