"""What a world's true preference says of two completions, whether or not a reward explains it.

The names in `__all__` are public: algorithms and tasks of third parties may import them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.examples import World
from xpo_bench.errors import DataError

__all__ = ["preference", "preference_matrix"]


def preference(world: World, prompt: str, a: str, b: str) -> float:
    """The true probability that `a` is preferred to `b`.

    Read from `World.preference` where the world states one for the prompt; else σ(r(a) − r(b)), Bradley and
    Terry's (1952). An action is preferred to itself with probability ½.

    Raises:
        DataError: the world states neither a preference of the two nor rewards of the prompt, or no
            probability.
    """
    stated = world.preference.get(prompt)
    if stated is None:
        if prompt not in world.reward:
            raise DataError(f"prompt {prompt!r}: the world states neither a preference nor a reward")
        reward = world.reward[prompt]
        return float(1 / (1 + np.exp(reward[b] - reward[a])))
    if a == b:
        return 0.5
    p = stated[a, b] if (a, b) in stated else 1 - stated[b, a] if (b, a) in stated else None
    if p is None:
        raise DataError(f"prompt {prompt!r}: no preference is stated of {a!r} and {b!r}")
    if not 0 <= p <= 1:
        raise DataError(f"prompt {prompt!r}: the preference of {a!r} and {b!r} is {p:g}; want one in [0, 1]")
    return p


def preference_matrix(world: World, prompts: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """P(first ≻ second) of all actions of some prompts, shape (P, A, A); None where none is stated.

    ½ on the diagonal and where a prompt has fewer actions than the widest.

    Raises:
        DataError: a preference is stated for some of the prompts only, or not of every two actions.
    """
    if not world.preference:
        return None
    silent = next((prompt for prompt in prompts if prompt not in world.preference), None)
    if silent is not None:
        raise DataError(f"prompt {silent!r} has no preference while others have; want one for every prompt")
    width = max(len(world.actions[prompt]) for prompt in prompts)
    out = np.full((len(prompts), width, width), 0.5)
    for matrix, prompt in zip(out, prompts, strict=True):
        texts = world.actions[prompt]
        matrix[: len(texts), : len(texts)] = [[preference(world, prompt, a, b) for b in texts] for a in texts]
    return out
