"""Sampling from a causal language model, and the KL divergence along samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.layout import batches
from xpo_bench.policy.tokenize import Encoded, Row, prompt_ids, truncate_left
from xpo_bench.types import Scores

if TYPE_CHECKING:
    from xpo_bench.policy.causal_lm import CausalLM


@dataclass(frozen=True)
class Sampled:
    """Completions drawn from a policy, S = prompts x samples, all samples of a prompt next to each other.

    Args:
        encoded: the rows as they were drawn (prompt ids kept), ready for `CausalLM.score`; length S.
        prompt_index: position in `prompts` of each sample, shape `(S,)`.
        scores: log-probabilities under the policy at temperature 1 and without top-k, nats, shape `(1, S, T)`.
        finished: whether an id that ends a text ended the sample, and not the length limit, shape `(S,)`.
        texts: the samples as text, special tokens left out. ids: the samples as they were drawn, their last one included.
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

    A sample ends with an id that ends a text (`policy.stops`: EOS, those of the model's generation settings, what the chat
    template writes after an answer), or after `max_new_tokens` tokens; without such ids all samples have exactly that many.
    Each draw inverts the cumulative distribution at a uniform number that belongs to (sample, position), so up to rounding
    a sample does not depend on what it is batched with, and the global generator is not touched.

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
        raise UsageError(f"samples {samples} must be at least 1, temperature {temperature} above 0 and top_k {top_k} at least 0")
    if not 1 <= max_new_tokens < policy.context:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; it must be between 1 and {policy.context - 1} (context − 1)")
    room, lead = policy.context - max_new_tokens, policy.tokenizer.lead
    whole = prompt_ids(policy.tokenizer, prompts)
    starts = [start for ids in whole for start in [truncate_left(ids, room, lead)] * samples]
    truncated = sum(len(ids) > room for ids in whole)
    uniform = torch.rand(len(starts), max_new_tokens, generator=generator, dtype=torch.float64)
    stops = policy.stops

    drawn: list[list[int]] = [[] for _ in starts]
    logps = torch.zeros(len(starts), max_new_tokens, dtype=torch.float64 if policy.dtype == "float64" else torch.float32)
    for batch in _decode_batches(policy, [len(start) for start in starts], max_new_tokens):
        tokens, batch_logps = _continue(policy, [starts[b] for b in batch], uniform[batch], stops, temperature, top_k)
        logps[batch, : batch_logps.shape[1]] = batch_logps
        for b, line in zip(batch, tokens, strict=True):
            end = next((k for k, token in enumerate(line, 1) if token in stops), len(line))
            drawn[b] = line[:end]

    lengths = torch.tensor([len(line) for line in drawn], dtype=torch.long)
    width = int(lengths.max()) if len(lengths) else 1
    mask = torch.arange(width) < lengths[:, None]
    return Sampled(
        encoded=Encoded.of(Row((*start, *line), len(start)) for start, line in zip(starts, drawn, strict=True)),
        prompt_index=torch.arange(len(prompts)).repeat_interleave(samples),
        scores=Scores(logps[:, :width].masked_fill(~mask, 0.0)[None].to(policy.device), mask[None].to(policy.device)),
        finished=torch.tensor([line[-1] in stops for line in drawn], dtype=torch.bool),
        texts=tuple(policy.tokenizer.decode(line[:-1] if line[-1] in stops else line) for line in drawn),
        ids=tuple(tuple(line) for line in drawn),
        temperature=temperature,
        top_k=top_k,
        truncated=truncated,
    )


def _decode_batches(policy: CausalLM, lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Rows to continue together. In float64 only prompts of one length: some models mask padding with the least
    float64 number and take the softmax in float32, where a query with nothing but padding before it is NaN."""
    for batch in batches([length + limit for length in lengths], policy.tokens_per_decode):
        if policy.dtype == "float64":
            yield from (list(same) for _, same in groupby(batch, key=lambda b: lengths[b]))
        else:
            yield batch


def _continue(
    policy: CausalLM,
    starts: Sequence[Sequence[int]],
    uniform: Tensor,
    stops: frozenset[int],
    temperature: float,
    top_k: int,
) -> tuple[list[list[int]], Tensor]:
    """Continue one batch of prompts, padded on the left, with a key-value cache.

    Returns:
        Tokens of each row (those after one of `stops` are to be ignored) and their log-probabilities, shape `(B, T)`, on
        the CPU.
    """
    device = policy.device
    rows, width, limit = len(starts), max(map(len, starts)), uniform.shape[1]
    tokens = torch.tensor([[*([0] * (width - len(start))), *start] for start in starts], device=device)
    mask = torch.tensor([[0] * (width - len(start)) + [1] * (len(start) + limit) for start in starts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    uniform = uniform.to(device)
    drawn = torch.zeros(rows, limit, dtype=torch.long, device=device)
    logps = torch.zeros(rows, limit, dtype=policy.value_dtype, device=device)
    row = torch.arange(rows, device=device)  # of every line that is still computed
    length = torch.tensor([len(start) for start in starts], device=device)
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    cache: Any = None
    policy.tokens_processed += int(length.sum())
    policy.flops += policy.shape.forward([(0, len(start)) for start in starts], rows)
    last = 0
    ends = torch.tensor(sorted(stops), device=device)
    with policy.autocast():  # outer scope: weights are cast once per batch, not once per token
        for t in range(limit):
            end, last = width + t, t + 1
            begin = 0 if cache is None else end - 1
            inputs = {
                "input_ids": tokens[:, begin:],
                "attention_mask": mask[:, :end],
                "use_cache": True,
                "past_key_values": cache,
            }
            if policy.takes_positions:
                inputs["position_ids"] = positions[:, begin:end]
            features, cache = policy.features(**inputs)
            if t:
                fed = (length + t)[~done].tolist()
                policy.tokens_processed += len(fed)
                policy.flops += policy.shape.forward([(n - 1, n) for n in fed], len(fed))
            logits = policy.logits(features[:, -1])
            token = policy.agreed(_draw(logits / temperature, uniform[:, t], top_k))
            drawn[row, t] = token
            logps[row, t] = torch.log_softmax(logits, -1).gather(1, token[:, None])[:, 0]
            tokens = torch.cat([tokens, token[:, None]], 1)
            if not stops:
                continue
            done |= torch.isin(token, ends)
            going = int((~done).sum())
            if not going:
                break
            if 2 * going <= len(done) and hasattr(cache, "batch_select_indices"):  # the finished ones cost no more
                keep = torch.nonzero(~done).flatten()
                cache.batch_select_indices(keep)
                tokens, mask, positions, uniform = tokens[keep], mask[keep], positions[keep], uniform[keep]
                row, length, done = row[keep], length[keep], done[keep]
    return drawn[:, :last].tolist(), logps[:, :last].cpu()


def _draw(logits: Tensor, uniform: Tensor, top_k: int) -> Tensor:
    """One token per row by inversion of the cumulative distribution, in float64; shape `(B,)`."""
    logits = logits.double()
    if 0 < top_k < logits.shape[-1]:
        kept = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    cumulative = logits.softmax(-1).cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # the first token whose cumulative probability exceeds the target: never one of probability zero
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def sequence_kl(policy: CausalLM, sampled: Sampled, reference: dict[str, Tensor] | CausalLM) -> SequenceKL:
    """KL(π ‖ π_ref) of each sample: the full-vocabulary KL at every position that was sampled, summed along the sample.

    Its mean over samples of π is an unbiased estimate of the KL between the distributions over completions up to the
    length limit, of lower variance than summed log-ratios (Rao–Blackwell), and it is never negative.

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
        for total, values in zip((kl, entropy), _divergence(policy, [rows[b] for b in batch], reference), strict=True):
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


def _divergence(policy: CausalLM, rows: Sequence[Row], reference: dict[str, Tensor] | CausalLM) -> tuple[Tensor, Tensor]:
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
