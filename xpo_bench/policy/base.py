"""What the trainer asks of a policy: a table (`tabular`, `linear`), a language model (`causal_lm`) or an
`ensemble` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.scoring import Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from xpo_bench.policy.language.fit import Fitted

Request = tuple[Any, "Tensor | None"]
"""(stacked completions, index): `index` has shape (runs, N) and picks completions, None takes all of
them; −1 stands for an absent row, whose mask is all false."""


class Policy(Protocol):
    """A trainable distribution over completions, for `runs` independent copies at once."""

    runs: int
    enumerable: bool
    stacked: bool
    """Whether parameters have a leading runs axis; those of a single model have none."""
    abilities: frozenset[str]
    notes: dict[str, Any]
    tokens_processed: int

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of scores."""
        ...

    def lengths(self, stacked: Any) -> Tensor:
        """Length of every stacked completion in tokens, shape (runs, E)."""
        ...

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set: truncated, left out, or as they are."""
        ...

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Any:
        """Look up or tokenise completions, once per stage."""
        ...

    def stack(self, encoded: Sequence[Any]) -> Any:
        """One object for the encoded completions of several runs, padded to the longest."""
        ...

    def begin(self) -> None:
        """Start a step: whatever all algorithms of the step share is computed here, with a graph."""
        ...

    def score(
        self, requests: Mapping[str, Request], *, grad: bool, runs: slice = ..., against: Any = None
    ) -> dict[str, Scores]:
        """Score several groups in one forward pass; shapes (runs, N, T). With `against`, a snapshot, also
        `token_kl` from it.
        """
        ...

    def score_all(self, stacked: Any, rows: Tensor | None = None, *, runs: slice = ...) -> Scores:
        """Score all stacked completions (or the given rows) without a graph; shape (runs, E, T)."""
        ...

    def score_sets(self, sets: Sequence[Any]) -> list[Scores]:
        """Score all completions of several stacked sets without a graph; a model computes the prompts that
        they share once.
        """
        ...

    def parameters(self) -> list[Tensor]:
        """The trainable tensors."""
        ...

    def snapshot(self) -> Any:
        """A copy of the parameters."""
        ...

    def restore(self, state: Any) -> None:
        """Set the parameters to a snapshot."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for the record."""
        ...
