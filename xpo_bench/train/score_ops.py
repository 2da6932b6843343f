"""Picking, cutting and joining the scores of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.policy.tabular import one_token


def take(scores: Scores, index: Tensor | None, width: int, *, absent: bool = True) -> Scores:
    """Pick rows of cached scores, shape (runs, N, width); −1 gives a masked row.

    Args:
        absent: there may be a −1.
    """
    if index is None:
        if scores.mask.shape[-1] == width:
            return scores
        return scores.map(lambda values: values[..., :width])
    # A completion of a table is one token: log π(y|x) is its log-probability, and nothing is summed. Absent
    # rows show the first one there, whatever its mask: their weight is 0.
    if scores.mask.shape[-1] == 1 and width == 1:
        return one_token(scores.sum.gather(1, index.clamp(min=0) if absent else index))
    deep = index.clamp(min=0).unsqueeze(-1).expand(-1, -1, scores.mask.shape[-1])
    picked = scores.map(lambda values: values.gather(1, deep)[..., :width])
    return replace(picked, mask=picked.mask & (index >= 0).unsqueeze(-1)).pad(width)


def by_token(step: Step) -> Step:
    """Every completion token as a row: (..., N, T) becomes (..., N·T, 1), absent tokens get weight 0.

    All groups are widened to one T, so that token t of chosen and of rejected stand in the same row. `totals`
    are those of the full step and stay as they are.
    """
    width = max(scores.mask.shape[-1] for scores in step.policy.values())

    def rows(scores: Scores) -> Scores:
        return scores.pad(width).map(lambda values: values.flatten(-2).unsqueeze(-1))

    def spread(values: Tensor) -> Tensor:
        return values.unsqueeze(-1).expand(*values.shape, width).flatten(-2)

    policy = {g: rows(s) for g, s in step.policy.items()}
    weight = next(iter(policy.values())).length  # of one token: 1, or 0 off the mask
    if step.weight is not None:
        weight = weight * spread(step.weight)
    return replace(
        step,
        policy=policy,
        reference={g: rows(s) for g, s in step.reference.items()},
        columns={name: spread(values) for name, values in step.columns.items()},
        weight=weight,
        exact_kl=None if step.exact_kl is None else spread(step.exact_kl),
        ties=None if step.ties is None else spread(step.ties),
    )


def detached(step: Step) -> Step:
    """The step without its graph."""
    return replace(step, policy={group: scores.detach() for group, scores in step.policy.items()})


def joined(pieces: Sequence[Step]) -> Step:
    """The micro-batches of one step as the step that they were cut from."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    weighted = any(piece.weight is not None for piece in pieces)
    kls = [piece.exact_kl for piece in pieces if piece.exact_kl is not None]
    ties = [piece.ties for piece in pieces if piece.ties is not None]
    return replace(
        first,
        policy={g: Scores.cat([piece.policy[g] for piece in pieces]) for g in first.policy},
        reference={g: Scores.cat([piece.reference[g] for piece in pieces]) for g in first.reference},
        columns={name: torch.cat([piece.columns[name] for piece in pieces], -1) for name in first.columns},
        weight=torch.cat([_weight(piece) for piece in pieces], -1) if weighted else None,
        exact_kl=torch.cat(kls, -1) if kls else None,
        ties=torch.cat(ties, -1) if ties else None,
    )


def _weight(step: Step) -> Tensor:
    """The weights of a micro-batch; where it has none, every row counts once."""
    if step.weight is not None:
        return step.weight
    mask = next(iter(step.policy.values())).mask
    return torch.ones(mask.shape[:-1], device=mask.device)
