"""What the suite asks of a policy, one protocol per capability.

Every policy is a `Policy`: it scores completions and gives and takes its parameters. Beyond that

    tabular, linear   Generation, Enumeration, ClosedForm, Tangent
    causal_lm         Generation, Gradients, Metered, Features, Members, and Sampling
    ensemble          Members
    adapters          Members and Joint

Code that needs a capability asks for it by `isinstance`, or names the protocol in its signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.scoring import Scores

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from xpo_bench.policy.language.fit import Fitted
    from xpo_bench.policy.language.sampling import Sampled, SequenceKL
    from xpo_bench.policy.language.scoring import Scorer
    from xpo_bench.policy.language.sharding import Sharding
    from xpo_bench.policy.tabular import TableLayout

# What a policy hands out and takes back is opaque to others: positions in a table, token ids, weights.
Encoded: TypeAlias = Any
"""What `encode` makes of completions."""
Stacked: TypeAlias = Any
"""What `stack` makes of the encoded completions of several runs."""
Snapshot: TypeAlias = Any
"""A copy of the parameters, as `snapshot` returned it."""
Notes: TypeAlias = dict[str, Any]
"""Facts for the record, which JSON can hold."""

Request: TypeAlias = tuple[Stacked, "Tensor | None"]
"""(stacked completions, index): `index` has shape (runs, N) and picks completions, None takes all of them; −1
stands for an absent row, whose mask is all false."""


class Scoring(Protocol):
    """Log-probabilities of completions, for `runs` independent copies at once."""

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of scores."""
        ...

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Encoded:
        """Look up or tokenise completions, once per stage."""
        ...

    def stack(self, encoded: Sequence[Encoded]) -> Stacked:
        """One object for the encoded completions of several runs, padded to the longest."""
        ...

    def lengths(self, stacked: Stacked) -> Tensor:
        """Length of every stacked completion in tokens, shape (runs, E)."""
        ...

    def begin(self) -> None:
        """Start a step: whatever all algorithms of the step share is computed here, with a graph."""
        ...

    def score(
        self,
        requests: Mapping[str, Request],
        *,
        grad: bool,
        runs: slice = ...,
        against: Snapshot | None = None,
    ) -> dict[str, Scores]:
        """Score groups in one forward pass, shapes (runs, N, T); `against` a snapshot, also `token_kl`."""
        ...

    def score_all(self, stacked: Stacked, rows: Tensor | None = None, *, runs: slice = ...) -> Scores:
        """Score all stacked completions (or the given rows) without a graph; shape (runs, E, T)."""
        ...

    def score_sets(self, sets: Sequence[Stacked]) -> list[Scores]:
        """Score several stacked sets without a graph; a model computes the prompts that they share once."""
        ...


class Snapshots(Protocol):
    """Parameters that can be kept and put back."""

    def parameters(self) -> list[Tensor]:
        """The trainable tensors."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of the parameters."""
        ...

    def restore(self, state: Snapshot) -> None:
        """Set the parameters to a snapshot."""
        ...


class Policy(Scoring, Snapshots, Protocol):
    """A trainable distribution over completions."""

    runs: int
    enumerable: bool
    """Whether all completions of a prompt are known: the policy is an `Enumeration`."""
    stacked: bool
    """Whether parameters have a leading runs axis; those of a single model have none."""
    abilities: frozenset[str]
    """What an algorithm may name in `Algorithm.requires`."""
    device: torch.device
    notes: Notes
    tokens_processed: int

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set: truncated, left out, or as they are."""
        ...

    def describe(self) -> Notes:
        """Facts for the record."""
        ...


@runtime_checkable
class Generation(Protocol):
    """Draws completions for algorithms that make their own data."""

    def generate(
        self,
        run: int,
        prompts: Sequence[str],
        samples: int,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = ...,
    ) -> list[list[Completion]]:
        """Independent completions of every prompt from one run; `top_k` 0 keeps the full support."""
        ...


@runtime_checkable
class Enumeration(Protocol):
    """The exact distribution over all completions of every prompt."""

    layout: TableLayout
    generalises: bool
    """Whether training changes the policy at prompts that occur in no training row."""

    def log_probs(self) -> Tensor:
        """log π, shape (runs, P, A), −inf on absent actions."""
        ...

    def exact_kl(
        self, stacked: Stacked, index: Tensor | None, runs: slice = ..., reference: Tensor | None = None
    ) -> Tensor:
        """KL(π(.|x) ‖ π_ref(.|x)) of the prompt of each picked completion, nats, shape (runs, N)."""
        ...

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt."""
        ...

    def final_policy(self, run: int) -> dict[str, dict[str, float]] | None:
        """{prompt: {completion: probability}} of one run, or None where it is too large for a record."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """Can be set to the solution of a problem, without steps."""

    def tilt(self, run: int, tilt: Mapping[Completion, float]) -> None:
        """Set one run to π ∝ π_ref·exp(tilt); completions that are not named keep tilt 0."""
        ...


@runtime_checkable
class Tangent(Protocol):
    """Knows ∇_θ log π of all completions of a prompt."""

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt."""
        ...

    def tangent(
        self, run: int, values: Mapping[str, Sequence[float]], counts: Mapping[str, int]
    ) -> dict[str, Sequence[float]]:
        """What of a function of completions v·∇_θ log π expresses at one run's policy, by least squares.

        Args:
            values: prompt -> the function at its actions, in their order. counts: prompt -> its weight.

        Returns:
            prompt -> the fitted function at its actions, up to a constant per prompt.
        """
        ...


@runtime_checkable
class Gradients(Protocol):
    """One model, whose gradients it takes itself: several processes may each keep a share of its layers."""

    sharding: Sharding | None

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of a loss, zero where it does not reach; of all losses where processes share layers."""
        ...

    def using(self, state: Snapshot) -> AbstractContextManager[None]:
        """Compute with a snapshot's parameters for a while."""
        ...

    def held_bytes(self) -> int:
        """Bytes of the tensors of the model that this process keeps, frozen ones included."""
        ...

    def anywhere(self, here: bool) -> bool:
        """Whether something holds in a process that shares the layers, or here."""
        ...


@runtime_checkable
class Metered(Protocol):
    """Counts its floating-point operations."""

    flops: float

    def operations(self, encoded: Encoded, index: Sequence[int]) -> float:
        """Operations of scoring these completions without a graph."""
        ...


@runtime_checkable
class Features(Protocol):
    """Describes completions by numbers, on which a reward head is fitted."""

    def describe_completions(
        self, completions: Sequence[Completion], state: Snapshot, truncate: str = "prompt"
    ) -> np.ndarray:
        """Features of completions under a snapshot, shape (n, width), float64."""
        ...


class Sampling(Protocol):
    """One language model that can be sampled and whose divergence along samples is known."""

    def sample(
        self, prompts: Sequence[str], samples: int, *, max_new_tokens: int, generator: torch.Generator
    ) -> Sampled:
        """Draw completions."""
        ...

    def sequence_kl(self, sampled: Sampled, reference: Snapshot) -> SequenceKL:
        """KL from a snapshot along samples of this policy."""
        ...


@runtime_checkable
class Members(Protocol):
    """One language model, or several copies of one that can be looked at one by one."""

    def member(self, run: int) -> AbstractContextManager[Sampling]:
        """The single model with the weights of one run, for a while."""
        ...

    @staticmethod
    def state_of(state: Snapshot, run: int) -> Snapshot:
        """The weights of one run in a snapshot."""
        ...


@runtime_checkable
class Joint(Protocol):
    """Scores what all algorithms of a step ask for in one pass, once it knows of it."""

    def expect(self, requests: Sequence[tuple[slice, Mapping[str, Request]]]) -> None:
        """What will be asked for with a graph in the step that has begun, as (runs, requests)."""
        ...


@runtime_checkable
class Model(Policy, Gradients, Metered, Protocol):
    """A single language model that trains."""

    scorer: Scorer
