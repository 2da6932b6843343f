"""From a trainer's padded batches to the scores that a loss of the contract reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.scoring import Scores
from xpo_bench.train.batching import mismatch


def scores_of(token_logps: Tensor, completion_mask: Tensor) -> Scores:
    """Scores of one run from log-probabilities of next tokens.

    Args:
        token_logps: log π(token t+1 | tokens up to t), nats, shape (N, L−1).
        completion_mask: 1 on tokens of completions, shape (N, L).

    Returns:
        Scores of shape (1, N, T), every completion from its first scored token on, as the suite's own.
    """
    mask = completion_mask[:, 1:].bool()
    if token_logps.dtype in (torch.float16, torch.bfloat16):
        token_logps = token_logps.float()
    width = max(1, int(mask.sum(-1).max()))
    # a stable sort of the mask puts the tokens of a completion first, in their order
    order = mask.int().argsort(dim=-1, descending=True, stable=True)[:, :width]
    return Scores(token_logps.gather(1, order)[None], mask.gather(1, order)[None])


def interleaved(chosen: Scores, rejected: Scores) -> Scores:
    """The completions of pairs as unpaired ones: chosen and rejected of a pair side by side, (1, 2N, T)."""
    both = Scores.cat([chosen, rejected])
    pairs = chosen.mask.shape[-2]
    index = torch.arange(2 * pairs, device=both.mask.device).view(2, pairs).T.reshape(-1)
    return both.map(lambda values: values.index_select(-2, index))


Ids = tuple[int, ...]


def split_rows(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> list[tuple[Ids, Ids]]:
    """(prompt, completion) of every padded row, as ids."""
    out = []
    for row, seen, own in zip(
        input_ids.tolist(), attention_mask.tolist(), completion_mask.tolist(), strict=True
    ):
        prompt = tuple(token for token, a, c in zip(row, seen, own, strict=True) if a and not c)
        out.append((prompt, tuple(token for token, c in zip(row, own, strict=True) if c)))
    return out


def mismatched_rows(rows: Sequence[tuple[Ids, Ids]]) -> list[tuple[Ids, Ids]]:
    """Every completion behind the prompt of another row of the batch; empty where all prompts are equal.

    The partner is the one that the suite takes (`batching.mismatch`): the nearest following row, cyclically.
    """
    import numpy as np

    # ids stand for texts: equal ids are equal prompts
    items = [Completion(repr(prompt), str(i)) for i, (prompt, _) in enumerate(rows)]
    prompts = {repr(prompt): prompt for prompt, _ in rows}
    found, index = mismatch(np.arange(len(rows))[None], items)
    return [(prompts[found[at].prompt], rows[i][1]) if at >= 0 else ((), ()) for i, at in enumerate(index[0])]


def padded(rows: Sequence[tuple[Ids, Ids]], pad_token: int, device: torch.device) -> dict[str, Tensor]:
    """Rows as `input_ids`, `attention_mask` and `completion_mask`, padded on the right.

    A row without tokens is one padding token that is nobody's completion, so that a model can be called.
    """

    def stack(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        tensors = [torch.tensor(list(each) or [fill], dtype=torch.long) for each in values]
        return pad_sequence(tensors, batch_first=True, padding_value=fill).to(device)

    return {
        "input_ids": stack([prompt + own for prompt, own in rows], pad_token),
        "attention_mask": stack([[1] * max(1, len(prompt) + len(own)) for prompt, own in rows], 0),
        "completion_mask": stack([[0] * len(prompt) + [1] * len(own) for prompt, own in rows], 0),
    }
