"""What TRL's forward passes over a batch of pairs return, as scores of either side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Single
from xpo_bench.contract.scoring import Scores
from xpo_bench.integrations.scores import interleaved, scores_of, split_rows


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """The log-probabilities that passes of a model return, in order; other passes are not looked at."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Any) -> None:
        if getattr(output, "log_probs", None) is not None:
            seen.append(output.log_probs)

    handle = model.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass(frozen=True)
class Sides:
    """Scores of both sides of a batch's pairs."""

    policy: Mapping[str, Scores]
    reference: Mapping[str, Scores]

    def of(self, model: str, group: str, algorithm: Algorithm) -> Scores:
        """The scores of a group that stands for a side, or for both, as `Algorithm.completions` has it."""
        sides: Mapping[str, Scores] = getattr(self, model)
        if algorithm.accepts is Single:
            return interleaved(sides["chosen"], sides["rejected"])
        return sides["chosen" if group == "chosen" else "rejected"]


def by_side(log_probs: Tensor, completion_mask: Tensor) -> dict[str, Scores]:
    """TRL's batch is the chosen rows, then the rejected ones."""
    # prompt-learning adapters put virtual tokens in front of the output
    found = log_probs[:, 1 - completion_mask.shape[1] :]
    halves = zip(found.chunk(2), completion_mask.chunk(2), strict=True)
    return {name: scores_of(*half) for name, half in zip(("chosen", "rejected"), halves, strict=True)}


def interleaved_rows(inputs: Mapping[str, Tensor]) -> list[Any]:
    rows = split_rows(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
    half = len(rows) // 2
    return [row for pair in zip(rows[:half], rows[half:], strict=True) for row in pair]
