"""A causal language model as a policy: Hugging Face models and the built-in `tiny`.

Its parts do the work: a `Network` computes features and logits, `probe` finds out what is right for the model
at hand, a `Reader` turns text into rows of ids, a `Scorer` gives them log-probabilities, a `Sampler` draws.
Scoring is exact before it is fast: log-softmax in float32 (float64 for float64 models), dropout off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from xpo_bench.contract.examples import Completion, Example, Text
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import DataError, UsageError
from xpo_bench.policy.devices import find_device
from xpo_bench.policy.language import sampling
from xpo_bench.policy.language.fit import Fitted
from xpo_bench.policy.language.flops import Tally
from xpo_bench.policy.language.hidden import mean_and_last
from xpo_bench.policy.language.loading import load_model, recompute_layers
from xpo_bench.policy.language.lora_targets import adapter_facts
from xpo_bench.policy.language.model_facts import context_length
from xpo_bench.policy.language.network import Network, prepared
from xpo_bench.policy.language.pretrained import quiet
from xpo_bench.policy.language.probes.head import probe_head
from xpo_bench.policy.language.probes.probe import probe
from xpo_bench.policy.language.reader import Reader
from xpo_bench.policy.language.requests import arrange, pick
from xpo_bench.policy.language.sampling import Sampled, Sampler, SequenceKL
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.policy.language.tokenize import Encoded
from xpo_bench.policy.language.tokenizers import Tokenizer, require_known
from xpo_bench.policy.language.weights import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = ("float32", "bfloat16", "float64")


class CausalLM:
    """One causal language model; the runs axis of its scores has length 1.

    Attributes:
        notes: how it is computed, for the record: those of its `Capabilities`, and whether `eos` is
            `appended` or `none`.
        capabilities: what was found out about the model.
        network, reader, scorer, sampler: its parts.
        tally: what went through the model; see `Tally`.
    """

    runs = 1
    enumerable = False
    stacked = False
    abilities: frozenset[str] = frozenset({"generate", "reward"})

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        spec: ModelSpec,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        packing: bool = True,
        sharding: Sharding | None = None,
    ) -> None:
        """Wrap a model that exists already; `load` builds one. The model is moved, cast and set to evaluation
        mode.

        Args:
            packing: let prompts share a row where the model can.
            sharding: what lets this process keep a share of the layers. All processes then make the same
                calls, and parameters, gradients and snapshots are this process's parts.

        Raises:
            UsageError: the device is not there, the dtype unknown, or the model not causal.
        """
        if dtype not in DTYPES:
            raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        self.device, self.dtype, self.spec, self.sharding = find_device(device), dtype, spec, sharding
        self.model = prepared(model, self.device, dtype, sharding)
        context = context_length(self.model.config, getattr(tokenizer, "inner", None))
        self.reader = Reader(tokenizer, context, spec.eos)
        head = probe_head(self.model, self.device, spec.name)
        self.network = Network(self.model, self.device, dtype, selected=head.selected, sharding=sharding)
        self.held_bytes = self.network.weights.held_bytes
        self.capabilities = able = probe(self.network, head, context=context, packing=packing, name=spec.name)
        self.tally = Tally()
        self.scorer = Scorer(self.network, able, self.tally)
        self.sampler = Sampler(self.network, able, self.reader, self.scorer.shape, self.tally, spec.name)
        ends = "appended" if spec.eos and tokenizer.eos is not None else "none"
        self.notes: dict[str, Any] = {"eos": ends, **able.notes}

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        *,
        init_seed: int,
        dtype: str = "float32",
        device: str = "cpu",
        checkpointing: bool = False,
        packing: bool = True,
        sharding: Sharding | None = None,
    ) -> CausalLM:
        """Build `tiny`, or load a packaged model, a hub id or a local path (see `pretrained`).

        Args:
            init_seed: seed of random weights; without effect on pretrained ones.
            dtype: `float32`, `float64`, or `bfloat16`: float32 weights with the body computed in bfloat16.
            device: `cpu`, `cuda`, `cuda:1`, ..., or `auto`.
            checkpointing: the backward pass computes the activations again in place of keeping them.
            packing, sharding: see the class.

        Raises:
            UnreachableError: a hub id that cannot be had from here.
            UsageError: anything else that is not a causal language model, or a device that is not there.
        """
        find_device(device)  # before a long download
        with quiet():
            model, tokenizer = load_model(spec, init_seed)
            policy = cls(
                model, tokenizer, spec, dtype=dtype, device=device, packing=packing, sharding=sharding
            )
        if checkpointing:
            policy.recompute_layers()
        return policy

    def recompute_layers(self) -> None:
        """Keep no activations inside the layers; the backward pass computes them again.

        Raises:
            UsageError: a model whose layers cannot.
        """
        recompute_layers(self.model, self.spec.name)
        self.notes["checkpointing"] = True
        self.scorer.trims = False  # what the backward pass computes again, it computes everywhere
        self.notes.pop("last_layer", None)

    # ----------------------------------------------------------------------- text

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into ids."""
        return self.reader.tokenizer

    @property
    def context(self) -> int:
        """The longest row in tokens."""
        return self.reader.context

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a sample; none where completions do not end with EOS either."""
        return self.reader.stops

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Encoded:
        """Tokenise completions once; see `tokenize.encode` for the boundary, truncation and EOS.

        Raises:
            UsageError: a prompt or completion without tokens, an id that the model has no embedding for, or
                an unknown `truncate`.
        """
        encoded = self.reader.encode(completions, truncate)
        largest = max((max(row.ids) for row in encoded.rows), default=0)
        require_known([largest], self.network.embeddings, self.tokenizer)
        return encoded

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set in this model's context; they are tokenised once."""
        return self.reader.fit(examples, truncate)

    def stack(self, encoded: Sequence[Encoded]) -> Encoded:
        """The encoded completions of the one run."""
        (only,) = encoded
        return only

    def lengths(self, stacked: Encoded) -> Tensor:
        """Length of every completion in tokens, EOS included, 0 for dropped rows, shape (1, E)."""
        rows = (stacked.row(i) for i in range(len(stacked)))
        return torch.tensor([[0 if row is None else row.length for row in rows]])

    # ----------------------------------------------------------------------- scoring

    def begin(self) -> None:
        """Nothing is shared between the algorithms of a step: a network is one run."""

    def score(
        self,
        requests: Mapping[str, tuple[Encoded, Tensor | None]],
        *,
        grad: bool,
        runs: slice = slice(None),
        against: State | None = None,
    ) -> dict[str, Scores]:
        """Score several groups together; rows that groups share are computed once.

        Args:
            requests: group -> (encoded, index); the index has shape `(1, N)`, −1 is an absent row, None takes
                all.
            grad: keep the graph.
            against: a snapshot, from which `token_kl` is also computed; it is run on the same rows, without a
                graph.

        Returns:
            Scores per group, shape `(1, N, T)`; see `arrange`.
        """
        picked = pick({group: ([encoded], index) for group, (encoded, index) in requests.items()}, 1)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return arrange(self.scorer.token_logps(picked.rows[0], against), picked)

    def score_all(self, encoded: Encoded, rows: Tensor | None = None, *, runs: slice = slice(None)) -> Scores:
        """Score every encoded completion without a graph, in batches sorted by length.

        Args:
            rows: indices of the completions to score; the others are absent. All by default.

        Returns:
            Scores of shape `(1, E, T)`, T the longest completion of `encoded`.
        """
        index = torch.arange(len(encoded))
        if rows is not None:
            index = index.masked_fill(~torch.isin(index, rows.reshape(-1).cpu()), -1)
        scores = self.score({"all": (encoded, index[None])}, grad=False)["all"]
        pad = (0, encoded.width - scores.mask.shape[-1])
        return Scores(F.pad(scores.token_logps, pad), F.pad(scores.mask, pad))

    def score_sets(self, sets: Sequence[Encoded]) -> list[Scores]:
        """Score all completions of several sets together, without a graph; shapes `(1, E, T)`, T the longest
        of the set.
        """
        scores = self.score({str(i): (encoded, None) for i, encoded in enumerate(sets)}, grad=False)
        return [scores[str(i)] for i in range(len(sets))]

    def operations(self, encoded: Encoded, index: Sequence[int]) -> float:
        """Floating-point operations of scoring these completions without a graph, and no others with them."""
        rows = dict.fromkeys(row for i in index if (row := encoded.row(i)) is not None)
        return self.scorer.operations(list(rows))

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of scores: float32, float64 for float64 models."""
        return self.network.value_dtype

    @property
    def tokens_processed(self) -> int:
        """Tokens that went through the model; see `Tally`."""
        return self.tally.tokens

    @tokens_processed.setter
    def tokens_processed(self, tokens: int) -> None:
        self.tally.tokens = tokens

    @property
    def flops(self) -> float:
        """Floating-point operations so far; see `Tally`."""
        return self.tally.flops

    @flops.setter
    def flops(self, flops: float) -> None:
        self.tally.flops = flops

    # ----------------------------------------------------------------------- sampling

    def sample(
        self,
        prompts: Sequence[str],
        samples: int,
        *,
        max_new_tokens: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> Sampled:
        """Draw completions; see `Sampler.sample`."""
        drawn = self.sampler.sample(
            prompts,
            samples,
            max_new_tokens=max_new_tokens,
            generator=generator,
            temperature=temperature,
            top_k=top_k,
        )
        if self.sampler.passed:
            self.notes["samples_scored_otherwise"] = self.sampler.passed
        return drawn

    def generate(
        self,
        run: int,
        prompts: Sequence[str],
        samples: int,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 64,
    ) -> list[list[Completion]]:
        """Draw completions, grouped by prompt; each carries the ids that were drawn, which are scored."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self.sample(
            prompts,
            samples,
            max_new_tokens=max_new_tokens,
            generator=generator,
            temperature=temperature,
            top_k=top_k,
        )
        made = [
            Completion(prompts[i], Text(text, ids=ids, reserve=max_new_tokens))
            for i, text, ids in zip(drawn.prompt_index.tolist(), drawn.texts, drawn.ids, strict=True)
        ]
        return [made[start : start + samples] for start in range(0, len(made), samples)]

    def sequence_kl(self, sampled: Sampled, reference: State | CausalLM) -> SequenceKL:
        """KL from a reference along samples of this policy; see `sampling.sequence_kl`."""
        other = reference.scorer if isinstance(reference, CausalLM) else reference
        return sampling.sequence_kl(self.scorer, sampled, other)

    def describe_completions(
        self, completions: Sequence[Completion], state: State, truncate: str = "prompt"
    ) -> npt.NDArray[np.float64]:
        """Features of completions under a snapshot, shape `(n, 2·width)`; see `mean_and_last`.

        Raises:
            DataError: a completion has no token within the context.
        """
        encoded = self.encode(completions, truncate)
        if encoded.dropped:
            raise DataError(
                f"{encoded.dropped} of {len(completions)} completions have no token within the context"
            )
        with self.using(state):
            distinct = mean_and_last(self.scorer, encoded.rows)
        return distinct.take(encoded.item.numpy(), axis=0)

    # ----------------------------------------------------------------------- parameters

    def parameters(self) -> list[Tensor]:
        """The trainable tensors."""
        return list(self.network.weights.named.values())

    def snapshot(self) -> State:
        """A copy of the trained parameters."""
        return self.network.weights.snapshot()

    def restore(self, state: State) -> None:
        """Set the parameters to a snapshot, in place."""
        self.network.weights.restore(state)

    def using(self, state: State) -> contextlib.AbstractContextManager[None]:
        """Compute with a snapshot's parameters for a while; see `Weights.using`."""
        return self.network.weights.using(state)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of a loss; see `Weights.gradients`."""
        return self.network.weights.gradients(loss)

    def anywhere(self, here: bool) -> bool:
        """Whether something holds in a process that shares the layers, or here."""
        return self.sharding.most(int(here)) > 0 if self.sharding else here

    @contextlib.contextmanager
    def member(self, run: int) -> Iterator[CausalLM]:
        """The model of one run: this one."""
        yield self

    @staticmethod
    def state_of(state: State, run: int) -> State:
        """The weights of one run in a snapshot."""
        return state

    def describe(self) -> dict[str, Any]:
        """Facts for the record."""
        weights, spec = self.network.weights, self.spec
        return {
            "name": spec.name,
            "revision": getattr(self.model.config, "_commit_hash", None),
            "architecture": type(self.model).__name__,
            "parameters": weights.size,
            "trained": weights.trained,
            **({"held": weights.held} if self.sharding else {}),
            **(adapter_facts(self.model, spec) if spec.lora_rank else {}),
            "vocabulary": self.network.vocabulary,
            "context": self.context,
            "dtype": self.dtype,
            "tokenizer": self.tokenizer.name,
            "bos": bool(self.tokenizer.lead),
            **self.notes,
        }
