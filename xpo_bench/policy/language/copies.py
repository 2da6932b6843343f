"""Several copies of one language model that train as one computation, however that is made.

A copy reads nothing of another. Parameters and snapshots have a leading runs axis, and encoded completions
are stacked as a list with one `Encoded` per run.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.scoring import Scores
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.fit import Fitted
from xpo_bench.policy.language.requests import Flat, arrange, pick
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.weights import State

ALL = slice(None)


class Copies(ABC):
    """`runs` copies of a causal language model.

    Args:
        single: the model; its own trained weights are neither read nor changed.
        runs: how many copies.
    """

    enumerable = False
    stacked = True
    abilities: frozenset[str] = frozenset()

    def __init__(self, single: CausalLM, runs: int) -> None:
        self.single = single
        self.runs = runs
        self.notes: dict[str, Any] = dict(single.notes)
        self.tokens_processed = 0
        self.device = single.device

    # ----------------------------------------------------------------------- scoring

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of scores."""
        return self.single.value_dtype

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set in the model's context."""
        return self.single.fit(examples, truncate)

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Encoded:
        """Tokenise completions once."""
        return self.single.encode(completions, truncate)

    def stack(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """The encoded completions of every run."""
        return list(encoded)

    def lengths(self, stacked: Sequence[Encoded]) -> Tensor:
        """Length of every completion in tokens, 0 for dropped and absent rows, shape (runs, E)."""
        rows = [self.single.lengths(encoded)[0] for encoded in stacked]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def begin(self) -> None:
        """Nothing is shared between the algorithms of a step."""
        return

    def score(
        self,
        requests: Mapping[str, tuple[Sequence[Encoded], Tensor | None]],
        *,
        grad: bool,
        runs: slice = ALL,
        against: State | None = None,
    ) -> dict[str, Scores]:
        """Score several groups for several runs; rows that the groups of a run share are computed once.

        Args:
            requests: group -> (encoded per run, index of shape (runs, N), −1 for absent rows, or None for
                all).
            against: a snapshot of all copies, from which `token_kl` is also computed.

        Returns:
            Scores per group, shape (runs, N, T).
        """
        picked = pick(requests, len(range(self.runs)[runs]))
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return arrange(self._token_logps(picked.rows, runs, against), picked)

    def score_all(
        self, stacked: Sequence[Encoded], rows: Tensor | None = None, *, runs: slice = ALL
    ) -> Scores:
        """Score all encoded completions without a graph, shape (runs, E, T)."""
        return self.score({"all": (stacked, None)}, grad=False, runs=runs)["all"]

    def score_sets(self, sets: Sequence[Sequence[Encoded]]) -> list[Scores]:
        """Score all encoded completions of several sets together, without a graph; shapes (runs, E, T)."""
        scores = self.score({str(i): (stacked, None) for i, stacked in enumerate(sets)}, grad=False)
        return [scores[str(i)] for i in range(len(sets))]

    @abstractmethod
    def _token_logps(self, rows: Sequence[Sequence[Row]], runs: slice, against: State | None) -> Flat:
        """Log-probabilities of all scored tokens of every run's rows, and the KL from a snapshot."""

    # ----------------------------------------------------------------------- copies

    @contextlib.contextmanager
    def member(self, run: int) -> Iterator[CausalLM]:
        """The single model with the weights of one copy, for sampling and for what else looks at one run."""
        with self.single.using(self.state_of(self._now(), run)):
            yield self.single

    @staticmethod
    def state_of(state: State, run: int) -> State:
        """The weights of one copy in a snapshot, not copied."""
        return {name: p[run] for name, p in state.items()}

    @abstractmethod
    def _now(self) -> State:
        """The parameters of all copies by name, with a leading runs axis: not copied, without a graph."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The trainable tensors, each with a leading runs axis."""

    @torch.no_grad()
    def snapshot(self) -> State:
        """A copy of all parameters of all copies."""
        return {name: p.clone() for name, p in self._now().items()}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Set the parameters to a snapshot, in place."""
        for name, p in self._now().items():
            p.copy_(state[name])

    def describe(self) -> dict[str, Any]:
        """Facts for the record."""
        return self.single.describe() | self.notes
