"""The linear policy: an action's score is linear in its features, so what is learnt of one prompt carries over to others.

    π(y|x) ∝ π_ref(y|x)·exp(θ·φ(x, y))

It shares everything with the table but the parameter: exact distributions, the runs axis, one code path. Trained by
likelihood from a uniform reference it is McFadden's conditional logit (McFadden 1974).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.types import World


class LinearPolicy(TabularPolicy):
    """`runs` weight vectors that start at 0, where the policy is the reference.

    Attributes:
        features: φ, shape (P, A, F), 0 on absent actions.
        parameter: θ, shape (runs, F).
    """

    generalises = True
    name = "linear"
    abilities = frozenset({"generate", "reward"})

    def __init__(self, world: World, runs: int, dtype: str = "float64", device: str = "cpu") -> None:
        """Raises UsageError when the world has no features, or some of another length or not finite."""
        self.world_features = world.features
        super().__init__(world, runs, dtype, device)

    def _start(self) -> Tensor:
        known = {
            (row, column): self._features_of(prompt, text)
            for row, prompt in enumerate(self.layout.prompts)
            for column, text in enumerate(self.layout.actions[row])
        }
        sizes = {len(values) for values in known.values()}
        if len(sizes) != 1 or not all(math.isfinite(v) for values in known.values() for v in values):
            raise UsageError(
                f"--model linear: features must be finite and of one length everywhere, found lengths {sorted(sizes)}"
            )
        (size,) = sizes
        self.features = torch.zeros(*self.log_reference.shape, size, dtype=self.value_dtype, device=self.device)
        for place, values in known.items():
            self.features[place] = torch.tensor(values, dtype=self.value_dtype)
        return torch.zeros(self.runs, size, dtype=self.value_dtype, device=self.device, requires_grad=True)

    def _features_of(self, prompt: str, text: str) -> tuple[float, ...]:
        try:
            return self.world_features[prompt][text]
        except KeyError:
            raise UsageError(
                "--model linear: this task knows no features of its actions; use a task that has them, such as travel, or tabular"
            ) from None

    def _logits(self) -> Tensor:
        # a product and a sum instead of a matrix product, whose rounding depends on the number of runs
        scores = (self.parameter[:, None, None, :] * self.features).sum(-1)
        return self.log_reference + scores

    def describe(self) -> dict[str, object]:
        """Facts for the record."""
        return super().describe() | {"features": self.features.shape[-1]}
