"""Named random streams: every draw of the suite comes from one of these, never from global state.

A stream is seeded by a hash of `seed/task/purpose`. The purposes `init` (weights), `data` (rows of synthetic
worlds), `labels` (one of the labels that a row's votes leave open), `noise` (label flips) and `order`
(batches) leave the algorithm out, so that all algorithms see the same (common random numbers); `generate`
(sampling from policies) and `reward` (fitting reward models) include it as a further word.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *words: str | int) -> int:
    """An integer in [0, 2^63) that depends on `seed` and every word, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *words))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, task: str, purpose: str, *more: str | int) -> np.random.Generator:
    """The numpy generator of a stream.

    Args:
        seed: the cell's seed. task: the task's name. purpose: see the module's text.
        more: further words, such as the algorithm's name for `generate` and `reward`.
    """
    return np.random.Generator(np.random.PCG64(derive(seed, task, purpose, *more)))


def torch_stream(
    seed: int, task: str, purpose: str, *more: str | int, device: str = "cpu"
) -> torch.Generator:
    """The torch generator of a stream on `device`; the numbers drawn differ from those of `stream`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, task, purpose, *more))
