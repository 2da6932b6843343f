"""How prompts may be continued, so that what is recorded of a sample is what the scorer says of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from xpo_bench.policy.language.decoding import WAYS, Way, decode
from xpo_bench.policy.language.probes.trial import ROUNDING, Trial, block
from xpo_bench.policy.language.tokenize import Row

DRAWN = 12
"""Tokens that are drawn to compare what the sampler records with what the scorer says: what a state gets
wrong grows.
"""
SAMPLED = 2e-5
"""Nats that the two may differ by at a token, or five times what padding alone changes where that is more."""

Prompts = list[tuple[int, ...]]
"""Prompts that are continued together."""


def way_of_sampling(trial: Trial, takes_positions: bool) -> tuple[Way | None, bool]:
    """The fastest way of continuing prompts whose log-probabilities are those of the scorer, None where none
    is, and whether rows that have ended may leave the batch.
    """
    drawn = max(1, min(DRAWN, trial.context - 1))
    # padding is masked by the least float64 number, and some models take the softmax in float32, where that
    # is −∞: a query with nothing but padding before it is NaN
    for way in WAYS[1:] if trial.network.dtype == "float64" else WAYS:
        groups = _prompts(trial, way, drawn)
        for shrinks in (True, False) if any(len(group) > 1 for group in groups) else (False,):
            what = f"sampling {way}" + ", ended rows leave" * shrinks
            attempt = partial(_errors, trial, groups, drawn, way, takes_positions, shrinks)
            # `agrees` allows for ROUNDING of the scale, so this scale allows for SAMPLED
            if trial.agrees(what, attempt, torch.zeros(1), SAMPLED / ROUNDING):
                return way, shrinks
    return None, True


def _prompts(trial: Trial, way: Way, drawn: int) -> list[Prompts]:
    """Prompts to try a way on, by what is continued together."""
    longest = max(1, min(len(trial.rows[0].ids), trial.context - drawn))
    first, other = trial.rows[0].ids[:longest], trial.rows[0].ids[:longest][::-1]
    short = other[: min(3, longest)]
    if way == "batched":
        return [[first, other[: max(1, longest // 2)], short, first[: min(7, longest)]]]
    if way == "equal lengths":
        return [[first, other], [first[: min(3, longest)], short]]
    return [[first], [short]]


def _errors(
    trial: Trial, groups: Sequence[Prompts], drawn: int, way: Way, takes_positions: bool, shrinks: bool
) -> Tensor:
    """The largest difference between what is recorded of a sampled token and what the scorer says, nats,
    shape (1,).

    It is divided where padding alone already changes more than `SAMPLED`. With `shrinks`, half of the
    samples end early, and leave the batch.
    """
    network = trial.network
    draw = partial(decode, network, way=way, takes_positions=takes_positions, shrinks=shrinks)
    worst, largest = 0.0, 1.0
    for number, starts in enumerate(groups):
        generator = torch.Generator().manual_seed(number)
        uniform = torch.rand(len(starts), drawn, generator=generator, dtype=torch.float64)
        tokens, logps = draw(starts, uniform)
        ends: set[int] = set()
        if shrinks:
            ends = {line[min(1, drawn - 1)] for line in tokens[: (len(tokens) + 1) // 2]}
            tokens, logps = draw(starts, uniform, sorted(ends))
        for start, line, recorded in zip(starts, tokens, logps, strict=True):
            last = next((t + 1 for t, token in enumerate(line) if token in ends), len(line))
            row = Row((*start, *line[:last]), len(start))
            features, targets, _ = network.completion_features([row], [block(row)], whole=True)
            scored = network.logits(features).log_softmax(-1).gather(1, targets[:, None])[:, 0].cpu()
            difference = (recorded[:last] - scored).abs().max()
            worst = max(worst, float(difference.nan_to_num(nan=float("inf"))))
            largest = max(largest, float(scored.abs().max()))
    return torch.tensor([worst / max(1.0, 5 * trial.noise * largest / SAMPLED)])
