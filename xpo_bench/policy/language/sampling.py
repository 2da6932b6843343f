"""Sampling from a causal language model, and the KL divergence along samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.decoding import decode, decode_batches
from xpo_bench.policy.language.tokenize import Encoded, Row, prompt_ids, truncate_left

if TYPE_CHECKING:
    from xpo_bench.policy.language.causal_lm import CausalLM


@dataclass(frozen=True)
class Sampled:
    """Completions drawn from a policy, S = prompts x samples, all samples of a prompt next to each other.

    Args:
        encoded: the rows as they were drawn (prompt ids kept), ready for `CausalLM.score`; length S.
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


@torch.no_grad()
def sample(
    policy: CausalLM,
    prompts: Sequence[str],
    samples: int,
    *,
    max_new_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Sampled:
    """Draw `samples` independent completions of every prompt.

    A sample ends with an id that ends a text (`policy.stops`: EOS, those of the model's generation settings,
    what the chat template writes after an answer), or after `max_new_tokens` tokens; without such ids all
    samples have exactly that many. Each draw inverts the cumulative distribution at a uniform number that
    belongs to (sample, position), so up to rounding a sample does not depend on what it is batched with, and
    the global generator is not touched.

    Args:
        samples: completions per prompt.
        max_new_tokens: length limit, tokens; it must leave room for one prompt token in the context.
        generator: a CPU generator.
        temperature: divides the logits, > 0.
        top_k: keep only the k most probable tokens; 0 keeps the full vocabulary.

    Raises:
        UsageError: an argument out of range, or an empty prompt for a tokenizer without BOS.
    """
    if samples < 1 or temperature <= 0 or top_k < 0:
        raise UsageError(
            f"samples {samples} must be at least 1, temperature {temperature} above 0 and top_k {top_k} at least 0"
        )
    if not 1 <= max_new_tokens < policy.context:
        raise UsageError(
            f"max_new_tokens is {max_new_tokens}; it must be between 1 and {policy.context - 1} (context − 1)"
        )
    room, lead = policy.context - max_new_tokens, policy.tokenizer.lead
    whole = prompt_ids(policy.tokenizer, prompts)
    starts = [start for ids in whole for start in [truncate_left(ids, room, lead)] * samples]
    truncated = sum(len(ids) > room for ids in whole)
    uniform = torch.rand(len(starts), max_new_tokens, generator=generator, dtype=torch.float64)
    stops = policy.stops

    drawn: list[list[int]] = [[] for _ in starts]
    logps = torch.zeros(
        len(starts), max_new_tokens, dtype=torch.float64 if policy.dtype == "float64" else torch.float32
    )
    for batch, tokens, batch_logps in _continued(policy, starts, uniform, sorted(stops), temperature, top_k):
        logps[batch, : batch_logps.shape[1]] = batch_logps
        for b, line in zip(batch, tokens, strict=True):
            drawn[b] = line[: _drawn(line, stops)]

    lengths = torch.tensor([len(line) for line in drawn], dtype=torch.long)
    width = int(lengths.max()) if len(lengths) else 1
    mask = torch.arange(width) < lengths[:, None]
    return Sampled(
        encoded=Encoded.of(
            Row((*start, *line), len(start)) for start, line in zip(starts, drawn, strict=True)
        ),
        prompt_index=torch.arange(len(prompts)).repeat_interleave(samples),
        scores=Scores(
            logps[:, :width].masked_fill(~mask, 0.0)[None].to(policy.device), mask[None].to(policy.device)
        ),
        finished=torch.tensor([line[-1] in stops for line in drawn], dtype=torch.bool),
        texts=tuple(policy.tokenizer.decode(line[:-1] if line[-1] in stops else line) for line in drawn),
        ids=tuple(tuple(line) for line in drawn),
        temperature=temperature,
        top_k=top_k,
        truncated=truncated,
    )


def _drawn(line: Sequence[int], stop: Collection[int]) -> int:
    """How many tokens of a line were drawn, the stop included."""
    return next((t + 1 for t, token in enumerate(line) if token in stop), len(line))


def _continued(
    policy: CausalLM,
    starts: Sequence[Sequence[int]],
    uniform: Tensor,
    stop: Sequence[int],
    temperature: float,
    top_k: int,
) -> Iterator[tuple[list[int], list[list[int]], Tensor]]:
    """Batches of prompts, as indices, with the tokens that continue them and their log-probabilities.

    Raises:
        UsageError: no way of sampling gives this model's own log-probabilities.
    """
    able, positions = policy.capabilities, policy.network.positions
    if able.sampling is None:
        raise UsageError(
            f"model {policy.spec.name!r} ({type(policy.model).__name__}): no way of sampling from it gives the log-probabilities "
            "that it scores; algorithms and metrics that sample need another model"
        )

    def count(rows: Sequence[tuple[int, int]], heads: int) -> None:
        policy.tokens_processed += sum(last - first for first, last in rows)
        policy.flops += policy.shape.forward(rows, heads)

    lengths, limit = [len(start) for start in starts], uniform.shape[1]
    for batch in decode_batches(
        lengths, limit, policy.tokens_per_decode, way=able.sampling, positions=positions
    ):
        tokens, logps = decode(
            policy.network,
            [starts[b] for b in batch],
            uniform[batch],
            stop,
            temperature,
            top_k,
            way=able.sampling,
            shrinks=able.shrinks,
            takes_positions=policy.takes_positions,
            count=count,
        )
        ends = [lengths[b] + _drawn(line, stop) for b, line in zip(batch, tokens, strict=True)]
        # what was drawn before a change of the encoding, or of what a row's later tokens do, is scored
        # otherwise in the whole row
        passed = sum(
            positions.changes(lengths[b], end) or end > able.alone_beyond > 0
            for b, end in zip(batch, ends, strict=True)
        )
        if passed:
            policy.notes["samples_scored_otherwise"] = (
                policy.notes.get("samples_scored_otherwise", 0) + passed
            )
        yield batch, tokens, logps


@torch.no_grad()
def sequence_kl(policy: CausalLM, sampled: Sampled, reference: dict[str, Tensor] | CausalLM) -> SequenceKL:
    """KL(π ‖ π_ref) of each sample: the full-vocabulary KL at every position that was sampled, summed along
    the sample.

    Its mean over samples of π is an unbiased estimate of the KL between the distributions over completions up
    to the length limit, of lower variance than summed log-ratios (Rao–Blackwell), and it is never negative.

    Args:
        sampled: samples of this policy at temperature 1 over the full vocabulary.
        reference: a snapshot of this policy's parameters, or another policy with the same vocabulary.

    Raises:
        UsageError: the samples were drawn at another temperature or with top-k.
    """
    if sampled.temperature != 1 or sampled.top_k:
        raise UsageError("the KL along samples needs samples at temperature 1 over the full vocabulary")
    rows = sampled.encoded.rows
    kl = torch.zeros(len(rows), dtype=torch.float64)
    entropy = torch.zeros(len(rows), dtype=torch.float64)
    for batch in policy.row_batches(rows):
        lengths = [rows[b].length for b in batch]
        for total, values in zip(
            (kl, entropy), _divergence(policy, [rows[b] for b in batch], reference), strict=True
        ):
            total[batch] = torch.stack([part.sum() for part in values.split(lengths)])
    lengths_of = torch.tensor([row.length for row in rows], dtype=torch.float64)
    item = sampled.encoded.item
    return SequenceKL(
        per_sample_kl=kl[item],
        prompt_index=sampled.prompt_index,
        entropy=float(entropy[item].sum() / lengths_of[item].sum()),
        mean_length=float(lengths_of[item].mean()),
    )


@contextmanager
def _as_reference(policy: CausalLM, reference: dict[str, Tensor] | CausalLM) -> Iterator[CausalLM]:
    """The reference as a policy: another one, or this one with a snapshot's parameters."""
    if isinstance(reference, dict):
        with policy.using(reference):
            yield policy
    else:
        yield reference


def _divergence(
    policy: CausalLM, rows: Sequence[Row], reference: dict[str, Tensor] | CausalLM
) -> tuple[Tensor, Tensor]:
    """KL and entropy at every completion position, nats, shape `(K,)` each, float64 on the CPU."""
    own, _ = policy.completion_features(rows)
    with _as_reference(policy, reference) as other:
        theirs, _ = other.completion_features(rows)
    kls, entropies = [], []
    for mine, ref in zip(own.split(policy.chunk), theirs.split(policy.chunk), strict=True):
        logp = policy.logits(mine).log_softmax(-1)
        with _as_reference(policy, reference) as other:
            ratio = logp - other.logits(ref).log_softmax(-1)
        p = logp.exp()
        possible = p > 0  # tokens that the model excludes have log-probability −inf
        kls.append((p * ratio.masked_fill(~possible, 0.0)).sum(-1).clamp(min=0.0))
        entropies.append(torch.special.entr(p).sum(-1))
    return torch.cat(kls).double().cpu(), torch.cat(entropies).double().cpu()
