"""Sampling from a causal language model, and the KL divergence along samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.decoding import decode, decode_batches
from xpo_bench.policy.language.divergence import kl_and_entropy
from xpo_bench.policy.language.flops import ModelShape, Tally
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.probes.capabilities import Capabilities
from xpo_bench.policy.language.reader import Reader
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.tokenize import Encoded, Row, prompt_ids, truncate_left
from xpo_bench.policy.language.weights import State

TOKENS_PER_DECODE = {"cpu": 2**15, "cuda": 2**16}
"""Tokens in the key-value cache of one batch of samples."""


@dataclass(frozen=True)
class Sampled:
    """Completions drawn from a policy, S = prompts x samples, all samples of a prompt next to each other.

    Args:
        encoded: the rows as they were drawn (prompt ids kept), ready to be scored; length S.
        prompt_index: position in `prompts` of each sample, shape `(S,)`.
        scores: log-probabilities under the policy at temperature 1 and without top-k, nats, shape `(1, S,
            T)`.
        finished: whether an id that ends a text ended the sample, and not the length limit, shape `(S,)`.
        texts: the samples as text, special tokens left out. ids: the samples as they were drawn, their last
            one included.
        temperature, top_k: what they were drawn with.
        truncated: prompts that lost their left end to leave room for the completion.
    """

    encoded: Encoded
    prompt_index: Tensor
    scores: Scores
    finished: Tensor
    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    temperature: float = 1.0
    top_k: int = 0
    truncated: int = 0


class SequenceKL(NamedTuple):
    """KL(π ‖ π_ref) along samples.

    Args:
        per_sample_kl: nats, shape `(S,)`, float64.
        prompt_index: prompt of each sample, for errors clustered by prompt, shape `(S,)`.
        entropy: mean over sampled tokens of the entropy of π, nats per token.
        mean_length: tokens per sample.
    """

    per_sample_kl: Tensor
    prompt_index: Tensor
    entropy: float
    mean_length: float


class Sampler:
    """Draws from a network, in the way that gives what the scorer says.

    Attributes:
        tokens_per_batch: padded tokens of one batch of samples, at most (one row at least).
        passed: samples whose recorded log-probabilities are not those that the whole row is scored with.
    """

    def __init__(
        self,
        network: Network,
        able: Capabilities,
        reader: Reader,
        shape: ModelShape,
        tally: Tally,
        name: str,
    ) -> None:
        self.network, self.able, self.reader, self.name = network, able, reader, name
        self.shape, self.tally = shape, tally
        self.tokens_per_batch = TOKENS_PER_DECODE.get(network.device.type, 2**14)
        self.passed = 0

    @torch.no_grad()
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
        """Draw `samples` independent completions of every prompt.

        A sample ends with an id that ends a text (`Reader.stops`: EOS, those of the model's generation
        settings, what the chat template writes after an answer), or after `max_new_tokens` tokens; without
        such ids all samples have exactly that many. Each draw inverts the cumulative distribution at a
        uniform number that belongs to (sample, position), so up to rounding a sample does not depend on what
        it is batched with, and the global generator is not touched.

        Args:
            samples: completions per prompt.
            max_new_tokens: length limit, tokens; it must leave room for one prompt token in the context.
            generator: a CPU generator.
            temperature: divides the logits, > 0.
            top_k: keep only the k most probable tokens; 0 keeps the full vocabulary.

        Raises:
            UsageError: an argument out of range, or an empty prompt for a tokenizer without BOS.
        """
        _require_range(samples, temperature, top_k, max_new_tokens, self.reader.context)
        tokenizer, stops = self.reader.tokenizer, self.reader.stops
        room = self.reader.context - max_new_tokens
        whole = prompt_ids(tokenizer, prompts)
        starts = [start for ids in whole for start in [truncate_left(ids, room, tokenizer.lead)] * samples]
        # one number per (sample, position), drawn at once: which samples share a batch changes none of them
        uniform = torch.rand(len(starts), max_new_tokens, generator=generator, dtype=torch.float64)
        drawn: list[list[int]] = [[] for _ in starts]
        logps = torch.zeros(len(starts), max_new_tokens, dtype=self.network.value_dtype)
        for batch, tokens, batch_logps in self._continued(starts, uniform, temperature, top_k):
            logps[batch, : batch_logps.shape[1]] = batch_logps
            for b, line in zip(batch, tokens, strict=True):
                drawn[b] = line[: _drawn(line, stops)]

        device = self.network.device
        lengths = torch.tensor([len(line) for line in drawn], dtype=torch.long)
        width = int(lengths.max()) if len(lengths) else 1
        mask = torch.arange(width) < lengths[:, None]
        return Sampled(
            encoded=Encoded.of(
                Row((*start, *line), len(start)) for start, line in zip(starts, drawn, strict=True)
            ),
            prompt_index=torch.arange(len(prompts)).repeat_interleave(samples),
            scores=Scores(logps[:, :width].masked_fill(~mask, 0.0)[None].to(device), mask[None].to(device)),
            finished=torch.tensor([line[-1] in stops for line in drawn], dtype=torch.bool),
            texts=tuple(tokenizer.decode(line[:-1] if line[-1] in stops else line) for line in drawn),
            ids=tuple(tuple(line) for line in drawn),
            temperature=temperature,
            top_k=top_k,
            truncated=sum(len(ids) > room for ids in whole),
        )

    def _continued(
        self, starts: Sequence[Sequence[int]], uniform: Tensor, temperature: float, top_k: int
    ) -> Iterator[tuple[list[int], list[list[int]], Tensor]]:
        """Batches of prompts, as indices, with the tokens that continue them and their log-probabilities.

        Raises:
            UsageError: no way of sampling gives this model's own log-probabilities.
        """
        way, stop = self.able.sampling, sorted(self.reader.stops)
        if way is None:
            raise UsageError(
                f"model {self.name!r} ({type(self.network.model).__name__}): no way of sampling from it "
                "gives the log-probabilities that it scores; algorithms and metrics that sample "
                "need another model"
            )
        lengths, limit = [len(start) for start in starts], uniform.shape[1]
        for batch in decode_batches(
            lengths, limit, self.tokens_per_batch, way=way, positions=self.network.positions
        ):
            tokens, logps = decode(
                self.network,
                [starts[b] for b in batch],
                uniform[batch],
                stop,
                temperature,
                top_k,
                way=way,
                shrinks=self.able.shrinks,
                takes_positions=self.able.takes_positions,
                count=self._count,
            )
            self.passed += sum(
                self._changes(lengths[b], lengths[b] + _drawn(line, stop))
                for b, line in zip(batch, tokens, strict=True)
            )
            yield batch, tokens, logps

    def _count(self, rows: Sequence[tuple[int, int]], heads: int) -> None:
        """Add (first, last) positions that were computed of each row, `heads` of them through the head."""
        self.tally.add(sum(last - first for first, last in rows), self.shape.forward(rows, heads))

    def _changes(self, start: int, end: int) -> bool:
        """Whether a row that grew from `start` tokens to `end` passed a length at which its position encoding
        changes, or what its later tokens do to earlier ones: the whole row is then scored otherwise.
        """
        # `alone_beyond` of 0: rows always go by themselves, and one way of computing is all there is
        return self.network.positions.changes(start, end) or end > self.able.alone_beyond > 0


def _require_range(samples: int, temperature: float, top_k: int, limit: int, context: int) -> None:
    """Raises UsageError for an argument of `sample` out of range."""
    if samples < 1 or temperature <= 0 or top_k < 0:
        raise UsageError(
            f"samples {samples} must be at least 1, temperature {temperature} above 0 "
            f"and top_k {top_k} at least 0"
        )
    if not 1 <= limit < context:
        raise UsageError(f"max_new_tokens is {limit}; it must be between 1 and {context - 1} (context − 1)")


def _drawn(line: Sequence[int], stop: Collection[int]) -> int:
    """How many tokens of a line were drawn, the stop included."""
    return next((t + 1 for t, token in enumerate(line) if token in stop), len(line))


@torch.no_grad()
def sequence_kl(scorer: Scorer, sampled: Sampled, reference: State | Scorer) -> SequenceKL:
    """KL(π ‖ π_ref) of each sample: the full-vocabulary KL at every position that was sampled, summed along
    the sample.

    Its mean over samples of π is an unbiased estimate of the KL between the distributions over completions up
    to the length limit, of lower variance than summed log-ratios (Rao–Blackwell), and it is never negative:

        KL(π ‖ π_ref) = E_y~π [ Σ_t KL(π(.|x, y_<t) ‖ π_ref(.|x, y_<t)) ]

    Args:
        scorer: of the network that drew the samples, at temperature 1 over the full vocabulary.
        reference: a snapshot of its parameters, or the scorer of a network with the same vocabulary.

    Raises:
        UsageError: the samples were drawn at another temperature or with top-k.
    """
    if sampled.temperature != 1 or sampled.top_k:
        raise UsageError("the KL along samples needs samples at temperature 1 over the full vocabulary")
    rows = sampled.encoded.rows
    batches = list(scorer.batches(rows))
    return _along(sampled, ((b, *_divergence(scorer, [rows[i] for i in b], reference)) for b in batches))


class Predicted(NamedTuple):
    """What a policy predicts along its samples, which outlives the policy: one model in memory at a time.

    Args:
        batches: indices of rows, and the features of their completion tokens on the host.
        logits: features -> logits. chunk: positions that go through the head at a time.
    """

    batches: tuple[tuple[list[int], Tensor], ...]
    logits: Callable[[Tensor], Tensor]
    chunk: int


@torch.no_grad()
def predict(scorer: Scorer, sampled: Sampled) -> Predicted:
    """Keep what the network that drew the samples predicts along them."""
    rows = sampled.encoded.rows
    batches = ((batch, scorer.features([rows[b] for b in batch])[0].cpu()) for batch in scorer.batches(rows))
    return Predicted(tuple(batches), scorer.network.head_alone(), scorer.chunk)


@torch.no_grad()
def kl_of_predicted(predicted: Predicted, sampled: Sampled, reference: Scorer) -> SequenceKL:
    """`sequence_kl` of what a policy has predicted, to a network with the same vocabulary."""
    rows, device = sampled.encoded.rows, reference.network.device

    def parts() -> Iterator[Divergence]:
        for batch, mine in predicted.batches:
            theirs, _ = reference.features([rows[b] for b in batch])
            yield (
                batch,
                *kl_and_entropy(
                    predicted.logits, mine.to(device), theirs, reference.network.logits, predicted.chunk
                ),
            )

    return _along(sampled, parts())


Divergence: TypeAlias = tuple[list[int], Tensor, Tensor]
"""Indices of rows, and the KL and the entropy at every completion position of them, row after row."""


def _along(sampled: Sampled, parts: Iterable[Divergence]) -> SequenceKL:
    """Sums along the samples of what was computed in batches."""
    rows = sampled.encoded.rows
    kl = torch.zeros(len(rows), dtype=torch.float64)
    entropy = torch.zeros(len(rows), dtype=torch.float64)
    for batch, *found in parts:
        lengths = [rows[b].length for b in batch]
        for total, values in zip((kl, entropy), found, strict=True):
            total[batch] = torch.stack([part.sum() for part in values.double().cpu().split(lengths)])
    lengths_of = torch.tensor([row.length for row in rows], dtype=torch.float64)
    item = sampled.encoded.item  # equal samples are computed once, and counted as often as they were drawn
    return SequenceKL(
        per_sample_kl=kl[item],
        prompt_index=sampled.prompt_index,
        entropy=float(entropy[item].sum() / lengths_of[item].sum()),
        mean_length=float(lengths_of[item].mean()),
    )


def _divergence(scorer: Scorer, rows: Sequence[Row], reference: State | Scorer) -> tuple[Tensor, Tensor]:
    """KL and entropy at every completion position of a batch, nats, shape `(K,)` each."""
    other = reference if isinstance(reference, Scorer) else scorer
    own = scorer.network.weights

    def logits_of(features: Tensor) -> Tensor:
        with nullcontext() if isinstance(reference, Scorer) else own.using(reference):
            return other.network.logits(features)

    mine, _ = scorer.features(rows)
    with nullcontext() if isinstance(reference, Scorer) else own.using(reference):
        theirs, _ = other.features(rows)
    return kl_and_entropy(scorer.network.logits, mine, theirs, logits_of, scorer.chunk)
