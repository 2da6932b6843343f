"""The linear policy: an action's score is linear in its features, so what is learnt of one prompt carries
over to others.

    π(y|x) ∝ π_ref(y|x)·exp(θ·φ(x, y))

It shares everything with the tabular one but the parameter: exact distributions, the runs axis, one code
path. Trained by likelihood from a uniform reference it is McFadden's conditional logit (McFadden 1974). With
a limited rank R it sees only the R directions in which the actions of a prompt differ most, so it cannot
express every preference of the full features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.examples import World
from xpo_bench.errors import UsageError
from xpo_bench.policy.tabular import TabularPolicy


class LinearPolicy(TabularPolicy):
    """`runs` weight vectors that start at 0, where the policy is the reference.

    Args:
        rank: principal directions of the features that are kept; 0 is the features as they are.

    Attributes:
        features: φ, shape (P, A, F) or (P, A, rank), 0 on absent actions.
        parameter: θ, shape (runs, F) or (runs, rank).
    """

    generalises = True
    name = "linear"
    abilities = frozenset({"generate", "reward", "tangent"})

    def __init__(
        self, world: World, runs: int, dtype: str = "float64", device: str = "cpu", rank: int = 0
    ) -> None:
        """Raises UsageError when the world has no features, some of another length or not finite, or fewer
        than `rank`.
        """
        self.world_features, self.rank = world.features, rank
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
                "--model linear: features must be finite and of one length everywhere, "
                f"found lengths {sorted(sizes)}"
            )
        (size,) = sizes
        self.features = torch.zeros(
            *self.log_reference.shape, size, dtype=self.value_dtype, device=self.device
        )
        for place, values in known.items():
            self.features[place] = torch.tensor(values, dtype=self.value_dtype)
        if self.rank:
            if self.rank > size:
                raise UsageError(
                    f"--model linear:{self.rank}: this task has {size} features an action; "
                    f"give at most linear:{size}"
                )
            self.features = self._principal(self.features, self.rank)
            size = self.rank
        return torch.zeros(self.runs, size, dtype=self.value_dtype, device=self.device, requires_grad=True)

    def _principal(self, features: Tensor, rank: int) -> Tensor:
        """Coordinates along the leading principal directions of standardised features, centred within each
        prompt.
        """
        there = torch.from_numpy(self.layout.mask).to(self.device)[..., None]
        mean = features.sum(1, keepdim=True) / there.sum(1, keepdim=True)
        centred = torch.where(there, features - mean, 0.0)
        scale = centred.square().sum((0, 1)).div(there.sum()).sqrt()
        centred = centred / torch.where(scale > 0, scale, 1.0)
        directions = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False).Vh[:rank]
        # the sign of a direction is arbitrary: its largest entry is positive
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        coordinates: Tensor = centred @ (directions * largest.sign()).T
        return coordinates

    def _features_of(self, prompt: str, text: str) -> tuple[float, ...]:
        try:
            return self.world_features[prompt][text]
        except KeyError:
            raise UsageError(
                "--model linear: this task knows no features of its actions; "
                "use a task that has them, such as travel, or tabular"
            ) from None

    def _logits(self, parameter: Tensor | None = None) -> Tensor:
        weights = self.parameter if parameter is None else parameter
        # a product and a sum instead of a matrix product, whose rounding depends on the number of runs
        scores = (weights[:, None, None, :] * self.features).sum(-1)
        return self.log_reference + scores

    def tangent(
        self, run: int, values: Mapping[str, Sequence[float]], counts: Mapping[str, int]
    ) -> dict[str, Sequence[float]]:
        """The regression of a function on the features, centred within prompts and weighted by π.

        With ∇_θ log π(y|x) = φ(x, y) − E_π φ, its coefficients are F⁻¹·E_π[f·∇_θ log π], F the Fisher matrix:
        the natural gradient of E_π f (Kakade 2001).
        """
        rows = [self._row(prompt) for prompt in values]
        p = self.log_probs()[run, rows].exp().double().cpu().numpy()  # 0 on absent actions
        features = self.features[rows].double().cpu().numpy()
        target = np.zeros(p.shape)
        for row, given in zip(target, values.values(), strict=True):
            row[: len(given)] = given
        weight = np.sqrt(p * np.array([[counts[prompt]] for prompt in values]))
        centred = features - (p[..., None] * features).sum(1, keepdims=True)
        target -= (p * target).sum(1, keepdims=True)
        design = (weight[..., None] * centred).reshape(-1, features.shape[-1])
        # lstsq: features may be collinear, or constant within every prompt
        coefficients = np.linalg.lstsq(design, (weight * target).ravel(), rcond=None)[0]
        fitted = (features @ coefficients).tolist()
        return {
            prompt: row[: len(given)] for row, (prompt, given) in zip(fitted, values.items(), strict=True)
        }

    def describe(self) -> dict[str, object]:
        """Facts for the record."""
        return (
            super().describe()
            | {"features": self.features.shape[-1]}
            | ({"rank": self.rank} if self.rank else {})
        )
