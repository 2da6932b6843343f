"""Steps to check a loss on: its own examples, completions and columns, and scores known in advance."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example, Single
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.testing.verdicts import require
from xpo_bench.testing.world import PAIRS, REFERENCE, Drifted, KitTools, TextPolicy
from xpo_bench.train.batching import mismatch
from xpo_bench.train.job import as_accepted

MOVED, MOVED_LESS = Drifted(0.9), Drifted(0.6)
EXACT_KL = 0.7
"""Nats; a world's own KL is above zero once a policy has moved."""
TIE_EVERY = 3
"""Rows of which one is a tie, for algorithms that model ties."""


@dataclass(frozen=True)
class View:
    """Under which policies a step is scored.

    Args:
        policy: the one that trains, or one per group. reference: the reference, or one per group.
        sampler: what `shape_data` samples from when the algorithm refreshes its data; the initial policy
            otherwise.
        exact: give `exact_kl` in place of the mismatched groups, as tabular policies do.
        visits: `Tools.rows`, the rows that training can visit. kl: the exact KL, nats.
        later: the algorithm's state is that after an equal step, and not the initial one.
    """

    policy: TextPolicy | Mapping[str, TextPolicy] = MOVED
    reference: TextPolicy | Mapping[str, TextPolicy] = REFERENCE
    sampler: TextPolicy = MOVED_LESS
    exact: bool = False
    dtype: torch.dtype = torch.float64
    visits: int = len(PAIRS)
    kl: float = EXACT_KL
    later: bool = False


PLAIN = View()
AT_REFERENCE = View(policy=REFERENCE, sampler=REFERENCE, kl=0.0)


def views(algorithm: Algorithm, view: View = PLAIN) -> list[View]:
    """The view; of mismatched groups also the one with the exact KL, with a state also later ones."""
    out = (
        [view, replace(view, exact=True)] if any(g.mismatched for g in algorithm.groups.values()) else [view]
    )
    return out + [replace(one, later=True) for one in out] if algorithm.state() else out


def rows(algorithm: Algorithm) -> list[Example]:
    """The rows for the algorithm: pairs, or unpaired examples with unequal numbers of labels."""
    given = as_accepted(PAIRS, algorithm.accepts)
    return given[:-3] if algorithm.accepts is Single else given


def shaped(algorithm: Algorithm, view: View = PLAIN) -> tuple[list[Example], KitTools]:
    """The examples of the first stage, and the tools with what was noted in them."""
    given = rows(algorithm)
    refreshes = any(stage.refresh is not None for stage in algorithm.stages())
    first = next(iter(algorithm.groups))
    reference = view.reference[first] if isinstance(view.reference, Mapping) else view.reference
    tools = KitTools(view.sampler if refreshes else reference, reference, given, view.visits)
    made = algorithm.shape_data(given, tools)
    require(len(made) > 0, "shape_data() returns no examples")
    part = algorithm.stage_examples(0, made)
    require(len(part) > 0, "stage_examples(0, ...) returns no examples")
    return list(part), tools


def make_step(algorithm: Algorithm, view: View = PLAIN) -> Step:
    """A step as the runner makes it; policy scores of groups with `grad=True` are leaves with gradients."""
    examples, _ = shaped(algorithm, view)
    policy, reference = {}, {}
    for name, completions in algorithm.completions(examples).items():
        group = algorithm.groups.get(name)
        if group is None or (group.mismatched and view.exact):
            continue
        if group.mismatched:
            found, index = mismatch(np.arange(len(completions))[None, :], completions)
            completions = [found[i] for i in index[0]]
        policy[name] = _scores(completions, _of(view.policy, name), view.dtype, rising=group.mismatched)
        # every group, also those that do not ask for it: reading what is not declared is one check's matter,
        # not every one's
        reference[name] = _scores(completions, _of(view.reference, name), view.dtype)
        policy[name] = _with_kl(policy[name], reference[name])
        if group.grad:
            policy[name].token_logps.requires_grad_(True)
            if group.token_kl:
                policy[name].token_kl.requires_grad_(True)  # type: ignore[union-attr]
    columns = {
        name: torch.tensor([float(v) for v in values], dtype=view.dtype)
        for name, values in algorithm.columns(examples).items()
    }
    kl = torch.full((len(examples),), view.kl, dtype=view.dtype) if view.exact else None
    ties = None
    if algorithm.ties:
        ties = torch.tensor([float(i % TIE_EVERY == 1) for i in range(len(examples))], dtype=view.dtype)
    step = with_totals(Step(policy, reference, columns, exact_kl=kl, ties=ties))
    return with_state(algorithm, step, view.later) if algorithm.state() else step


def with_state(algorithm: Algorithm, step: Step, later: bool = False) -> Step:
    """The step with the algorithm's initial state, or with the one after it."""
    dtype = next(iter(step.policy.values())).token_logps.dtype
    dtype = torch.float32 if dtype == torch.bfloat16 else dtype  # a policy's scores are at least float32
    state = {
        name: torch.as_tensor(value, dtype=dtype).reshape(1) for name, value in algorithm.state().items()
    }
    step = replace(step, state=state)
    return (
        replace(step, state={k: v.detach() for k, v in algorithm.next_state(step).items()}) if later else step
    )


def _of(policy: TextPolicy | Mapping[str, TextPolicy], group: str) -> TextPolicy:
    return policy[group] if isinstance(policy, Mapping) else policy


def _scores(
    completions: Sequence[Completion], policy: TextPolicy, dtype: torch.dtype, rising: bool = False
) -> Scores:
    tokens = [torch.from_numpy(policy.tokens(c, rising=rising)).to(dtype) for c in completions]
    width = max(map(len, tokens))
    mask = torch.arange(width) < torch.tensor([[len(t)] for t in tokens])
    return Scores(torch.stack([pad(t, (0, width - len(t))) for t in tokens]), mask)


def _with_kl(policy: Scores, reference: Scores) -> Scores:
    """The scores with a KL at every token: like any KL at least 0, and 0 where policy and reference agree."""
    return replace(policy, token_kl=0.5 * (policy.token_logps - reference.token_logps).abs())


def without_kl(step: Step, groups: Collection[str]) -> Step:
    """The step without the KL at every token of these groups."""
    return replace(
        step, policy={g: replace(s, token_kl=None) if g in groups else s for g, s in step.policy.items()}
    )


def changed(scores: Scores, change: Callable[[Tensor], Tensor], mask: Tensor) -> Scores:
    """Scores with another mask, whose numbers per token went through `change`."""
    return Scores(
        change(scores.token_logps), mask, None if scores.token_kl is None else change(scores.token_kl)
    )


def with_totals(step: Step) -> Step:
    """The step with the sums of its columns and of its rows, over the rows that it holds."""
    weight = torch.ones(size(step), dtype=torch.float64) if step.weight is None else step.weight
    totals = {name: (values * weight).sum(-1, keepdim=True) for name, values in step.columns.items()}
    return replace(step, totals={**totals, "examples": weight.sum(-1, keepdim=True)})


def size(step: Step) -> int:
    """Rows of a step."""
    return next(iter(step.policy.values())).mask.shape[-2]


def pick(step: Step, index: slice | Tensor) -> Step:
    """Some rows of a step without runs axis, with the totals of the whole."""

    def part(scores: Mapping[str, Scores]) -> dict[str, Scores]:
        return {g: s.map(lambda values: values[index]) for g, s in scores.items()}

    return replace(
        step,
        policy=part(step.policy),
        reference=part(step.reference),
        columns={name: values[index] for name, values in step.columns.items()},
        weight=None if step.weight is None else step.weight[index],
        exact_kl=None if step.exact_kl is None else step.exact_kl[index],
        ties=None if step.ties is None else step.ties[index],
    )


def longer(values: Tensor, more: int, fill: float) -> Tensor:
    """The tensor with `more` further rows that hold `fill`."""
    return torch.cat([values, torch.full((more, *values.shape[1:]), fill, dtype=values.dtype)])


def with_absent_rows(step: Step, more: int = 2) -> Step:
    """The step with rows of weight 0 behind its own, as the runner pads ragged batches."""

    def scores(groups: Mapping[str, Scores]) -> dict[str, Scores]:
        return {
            g: changed(s, lambda v: longer(v, more, -9.0), longer(s.mask, more, False))
            for g, s in groups.items()
        }

    return replace(
        step,
        policy=scores(step.policy),
        reference=scores(step.reference),
        columns={name: longer(values, more, 0.0) for name, values in step.columns.items()},
        weight=longer(torch.ones(size(step), dtype=torch.float64), more, 0.0),
        exact_kl=None if step.exact_kl is None else longer(step.exact_kl, more, 5.0),
        ties=None if step.ties is None else longer(step.ties, more, 1.0),
    )


def with_junk_off_mask(step: Step, junk: float) -> Step:
    """The step with three further tokens off the mask, and `junk` wherever the mask is false."""

    def scores(groups: Mapping[str, Scores]) -> dict[str, Scores]:
        out = {}
        for g, s in groups.items():
            mask = pad(s.mask, (0, 3))
            out[g] = changed(s, lambda values, mask=mask: pad(values, (0, 3)).masked_fill(~mask, junk), mask)  # type: ignore[misc]
        return out

    return replace(step, policy=scores(step.policy), reference=scores(step.reference))


def side_by_side(steps: Sequence[Step]) -> Step:
    """Steps of several runs as one, shape (runs, N)."""
    first = steps[0]

    def scores(groups: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
        return {g: Scores.cat([s[g].map(lambda values: values[None]) for s in groups], 0) for g in groups[0]}

    def tensors(maps: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([m[name] for m in maps]) for name in maps[0]}

    return Step(
        scores([s.policy for s in steps]),
        scores([s.reference for s in steps]),
        tensors([s.columns for s in steps]),
        totals=tensors([s.totals for s in steps]),
        exact_kl=None
        if first.exact_kl is None
        else torch.stack([s.exact_kl for s in steps if s.exact_kl is not None]),
        state=tensors([s.state for s in steps]),
        ties=None if first.ties is None else torch.stack([s.ties for s in steps if s.ties is not None]),
    )


def leaves(step: Step) -> list[Tensor]:
    """What of the policy's scores asks for its gradient: log-probabilities by group, then KLs."""
    kls = [s.token_kl for s in step.policy.values() if s.token_kl is not None]
    return [t for t in ([s.token_logps for s in step.policy.values()] + kls) if t.requires_grad]


def gradients(values: Tensor, step: Step) -> list[Tensor | None]:
    """Gradients of the summed loss to `leaves(step)`; None where no graph leads."""
    if not values.requires_grad:
        return [None] * len(leaves(step))
    found: tuple[Tensor | None, ...] = torch.autograd.grad(values.sum(), leaves(step), allow_unused=True)
    return list(found)


def tensors_of(step: Step) -> dict[str, Tensor]:
    """Every tensor that a step holds, by a name that says where."""
    out: dict[str, Tensor] = {}
    for side in ("policy", "reference"):
        for group, scores in getattr(step, side).items():
            out[f"step.{side}[{group!r}].token_logps"], out[f"step.{side}[{group!r}].mask"] = (
                scores.token_logps,
                scores.mask,
            )
            if scores.token_kl is not None:
                out[f"step.{side}[{group!r}].token_kl"] = scores.token_kl
    for side in ("columns", "totals", "state"):
        out |= {f"step.{side}[{name!r}]": values for name, values in getattr(step, side).items()}
    for name in ("exact_kl", "ties"):
        if (values := getattr(step, name)) is not None:
            out[f"step.{name}"] = values
    return out
