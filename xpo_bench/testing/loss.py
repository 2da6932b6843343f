"""Checks of the loss alone, on scores known in advance. A docstring's first line states the property."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product

import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.scoring import Group, Scores, Step
from xpo_bench.testing.steps import (
    AT_REFERENCE,
    PLAIN,
    View,
    gradients,
    leaves,
    make_step,
    pick,
    side_by_side,
    size,
    tensors_of,
    views,
    with_absent_rows,
    with_junk_off_mask,
    with_state,
    without_kl,
)
from xpo_bench.testing.variations import float_fields, three_runs
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable, require, require_close
from xpo_bench.testing.world import Drifted, Level, TextPolicy

FAR = 3000.0
"""Nats between policy and reference in `extremes`."""
SURE = -1e-3
"""Nats of a completion that is almost certain."""


def shape(algorithm: Algorithm) -> None:
    """The loss is a floating-point tensor with one value per example, shape (..., N)."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        values = algorithm.loss(step)
        require(isinstance(values, Tensor), f"loss() returns {type(values).__name__}")
        require(values.is_floating_point(), f"loss() returns {values.dtype}")
        expected = (size(step),)
        require(
            values.shape == expected, f"loss() returns shape {tuple(values.shape)} for {size(step)} examples"
        )
        both = algorithm.loss(side_by_side([step, make_step(algorithm, view)]))
        require(
            both.shape == (2, *expected),
            f"loss() returns shape {tuple(both.shape)} for 2 runs of {size(step)} examples",
        )


def finite(algorithm: Algorithm) -> None:
    """Loss and gradient are finite at ordinary log-probabilities."""
    for view in views(algorithm):
        _require_finite(algorithm, make_step(algorithm, view), "")


def finite_at_reference(algorithm: Algorithm) -> None:
    """Loss and gradient are finite where the policy is the reference, as at the first step of training."""
    for view in views(algorithm, AT_REFERENCE):
        _require_finite(algorithm, make_step(algorithm, view), " at policy = reference")


def extremes(algorithm: Algorithm) -> None:
    """Loss and gradient are finite in float32 when log-ratios are ±3,000 nats."""
    for where, view in _corners(algorithm):
        for variant in views(algorithm, view):
            _require_finite(algorithm, make_step(algorithm, variant), f" at {where}")


def _corners(algorithm: Algorithm) -> Iterator[tuple[str, View]]:
    """Every way to place the groups 3,000 nats above or below the reference."""
    groups = list(algorithm.groups)
    # an overflow may need one group far up and the other far down: all 2^g corners are tried
    for signs in product((-1, 1), repeat=len(groups)):
        policy: dict[str, TextPolicy] = {
            g: Level(SURE if sign > 0 else SURE - FAR) for g, sign in zip(groups, signs, strict=True)
        }
        reference: dict[str, TextPolicy] = {
            g: Level(SURE - FAR if sign > 0 else SURE) for g, sign in zip(groups, signs, strict=True)
        }
        where = ", ".join(
            f"log-ratio {'+' if sign > 0 else '-'}3000 of {g}" for g, sign in zip(groups, signs, strict=True)
        )
        yield where, View(policy, reference, sampler=policy[groups[0]], dtype=torch.float32, kl=FAR)


def bfloat16(algorithm: Algorithm) -> None:
    """Loss and gradient are finite for bfloat16 scores, also of completions that are almost certain."""
    sure = View(policy=Level(SURE), reference=Level(-3.0), sampler=Level(SURE))
    for view in (PLAIN, sure):
        for variant in views(algorithm, replace(view, dtype=torch.bfloat16)):
            _require_finite(algorithm, make_step(algorithm, variant), " in bfloat16")


def _require_finite(algorithm: Algorithm, step: Step, where: str) -> None:
    values = algorithm.loss(step)
    _require_all_finite(values, f"the loss holds {{}}{where}")
    for slope in gradients(values, step):
        if slope is not None:
            _require_all_finite(slope, f"the gradient holds {{}}{where}, while the loss is finite")


def _require_all_finite(values: Tensor, message: str) -> None:
    bad = values.detach()[~torch.isfinite(values)]
    if len(bad):
        raise CheckFailed(message.format(float(bad[0])))


class Recorder(Mapping[str, Scores]):
    """A mapping that remembers which keys were asked for."""

    def __init__(self, items: Mapping[str, Scores]) -> None:
        self.items_, self.read = items, set[str]()

    def __getitem__(self, key: str) -> Scores:
        self.read.add(key)
        return self.items_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_)

    def __len__(self) -> int:
        return len(self.items_)


def _reads(algorithm: Algorithm) -> tuple[set[str], set[str], bool]:
    """(groups with policy scores that the loss reads, groups with references, whether a key was missing)."""
    step = make_step(algorithm)
    policy, reference = Recorder(step.policy), Recorder(step.reference)
    try:
        algorithm.loss(replace(step, policy=policy, reference=reference))
    except KeyError:
        return policy.read, reference.read, True
    return policy.read, reference.read, False


def declared_is_read(algorithm: Algorithm) -> None:
    """The loss reads every group that it declares, every reference and every `token_kl`."""
    policy, reference, missing = _reads(algorithm)
    if missing:
        raise NotApplicable("the loss reads what it does not declare")
    step = make_step(algorithm)
    if step.ties is not None:
        without = algorithm.loss(replace(step, ties=torch.zeros_like(step.ties)))
        told = not torch.equal(algorithm.loss(step), without)
        require(told, "declares ties, and a tie has the loss of a preference")
    for name, group in algorithm.groups.items():
        require(name in policy, f"declares the group {name!r} and does not read it")
        require(
            not group.reference or name in reference,
            f"declares the reference of {name!r} and does not read it",
        )
        require(
            not group.token_kl or _reads_kl(algorithm, name),
            f"declares token_kl of {name!r} and does not read it",
        )


def _reads_kl(algorithm: Algorithm, group: str) -> bool:
    for view in views(algorithm):
        step = make_step(algorithm, view)
        scores = step.policy.get(group)
        if scores is not None and scores.token_kl is not None:
            # a read of token_kl shows in the value: half a nat more per token has to change the loss
            more = {**step.policy, group: replace(scores, token_kl=scores.token_kl + 0.5)}
            if not torch.equal(algorithm.loss(replace(step, policy=more)), algorithm.loss(step)):
                return True
    return False


def undeclared_is_not_read(algorithm: Algorithm) -> None:
    """The loss reads no group, no reference and no `token_kl` that it does not declare."""
    policy, reference, _ = _reads(algorithm)
    for name in sorted(policy - set(algorithm.groups)):
        raise CheckFailed(f"reads step.policy[{name!r}], which groups does not declare")
    for name in sorted(reference):
        declared = name in algorithm.groups and algorithm.groups[name].reference
        require(declared, f"reads step.reference[{name!r}], for which groups declares no reference=True")
    step = make_step(algorithm)
    for name in (name for name, group in algorithm.groups.items() if not group.token_kl):
        try:
            algorithm.loss(without_kl(step, [name]))
        except (TypeError, AttributeError):
            raise CheckFailed(
                f"reads token_kl of {name!r}, for which groups declares no token_kl=True"
            ) from None


def gradient(algorithm: Algorithm) -> None:
    """The gradient reaches every group that is scored with a graph, and nothing else."""
    step = make_step(algorithm)
    own = leaves(step)
    values = algorithm.loss(step)
    # a loss without a graph trains nothing, and would pass every check of its values
    require(values.requires_grad, "the loss carries no gradient: something detaches the policy's scores")
    found = gradients(values, step)
    graphed = [name for name, scores in step.policy.items() if scores.token_logps.requires_grad]
    # the leaves of token_kl come last and are left out: whether they train is the loss's own choice
    for name, reached in zip(graphed, found, strict=False):
        require(
            reached is not None,
            f"no gradient reaches {name!r}, which is scored with a graph; "
            "if that is meant, declare Group(grad=False)",
        )
    require(any(bool(g.any()) for g in found if g is not None), "the gradient is zero everywhere")
    for where, tensor in tensors_of(step).items():
        expected = any(tensor is leaf for leaf in own)
        require(expected or not tensor.requires_grad, f"makes {where} ask for a gradient")


def off_mask(algorithm: Algorithm) -> None:
    """What stands off the mask, infinities included, changes neither loss nor gradient."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        expected = algorithm.loss(step)
        slopes = gradients(expected, step)
        for junk in (-torch.inf, 7.0):
            values = algorithm.loss(with_junk_off_mask(step, junk))
            require_close(values, expected, f"{junk} off the mask changes the loss")
            for got, slope in zip(gradients(values, step), slopes, strict=True):
                if got is not None and slope is not None:
                    require_close(got, slope, f"{junk} off the mask changes the gradient")


def absent_rows(algorithm: Algorithm) -> None:
    """Rows of weight 0, with which the runner pads ragged batches, change nothing for the others."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        expected = algorithm.loss(step)
        values = algorithm.loss(with_absent_rows(step))
        require_close(values[: size(step)], expected, "rows of weight 0 change the loss of the others")
        # the runner's own reduction: what stands on absent rows must not spoil the gradient either
        weight = torch.ones_like(values)
        weight[size(step) :] = 0.0
        kept = torch.where(weight > 0, values * weight, 0.0)
        for got, slope in zip(gradients(kept, step), gradients(expected, step), strict=True):
            if got is not None and slope is not None:
                require_close(got, slope, "rows of weight 0 change the gradient of the others")


def deterministic(algorithm: Algorithm) -> None:
    """Two calls on equal steps give the same bits."""
    first, second = (algorithm.loss(make_step(algorithm)) for _ in range(2))
    require(torch.equal(first.nan_to_num(), second.nan_to_num()), "two calls on equal steps differ")


def inputs_kept(algorithm: Algorithm) -> None:
    """The loss leaves the step as it found it."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        before = {name: tensor.detach().clone() for name, tensor in tensors_of(step).items()}
        algorithm.loss(step)
        after = tensors_of(step)
        for name in sorted(before.keys() ^ after.keys()):
            raise CheckFailed(f"{'removes' if name in before else 'adds'} {name}")
        for name, tensor in before.items():
            require(torch.equal(tensor, after[name].detach()), f"changes {name} in place")


def runs_axis(algorithm: Algorithm) -> None:
    """Runs side by side, with float fields of shape (runs, 1), get the losses that each gets alone."""
    for view in views(algorithm):
        runs = three_runs(algorithm)
        steps = [make_step(algorithm, replace(view, policy=Drifted(0.9, seed))) for seed in range(3)]
        columns = {
            name: torch.tensor([[getattr(run, name)] for run in runs], dtype=torch.float64)
            for name in float_fields(algorithm)
        }
        stacked = replace(algorithm, **columns)
        if algorithm.state():
            steps = [with_state(run, step, view.later) for run, step in zip(runs, steps, strict=True)]
        got = stacked.loss(side_by_side(steps))
        alone = torch.stack([run.loss(step) for run, step in zip(runs, steps, strict=True)])
        require_close(got, alone, "runs side by side differ from the same runs one at a time")


def row_order(algorithm: Algorithm) -> None:
    """The order of the examples changes no value; of a batch-coupled loss, not the sum."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        expected = algorithm.loss(step)
        order = torch.randperm(size(step), generator=torch.Generator().manual_seed(0))
        values = algorithm.loss(pick(step, order))
        if algorithm.batch_coupled:
            require_close(values.sum(-1), expected.sum(-1), "the order of the examples changes the loss")
        else:
            require_close(values, expected[order], "the order of the examples changes the loss of an example")


def batch_coupling(algorithm: Algorithm) -> None:
    """The loss of an example depends on the others of its batch if, and only if, `batch_coupled` says so."""
    differs = False
    for view in views(algorithm):
        step = make_step(algorithm, view)
        n = size(step)
        cuts = [slice(0, n // 2), slice(n // 2, n // 2 + 1), slice(n // 2 + 1, n)]
        parts = torch.cat([algorithm.loss(pick(step, cut)) for cut in cuts if cut.start < cut.stop])
        whole = algorithm.loss(step)
        if not algorithm.batch_coupled:
            require_close(parts, whole, "a step in micro-batches gives other values than the whole step")
        differs = differs or not torch.allclose(parts, whole, equal_nan=True)
    require(
        differs or not algorithm.batch_coupled,
        "declares batch_coupled, yet no value depends on the other examples",
    )


@dataclass(frozen=True)
class FutureStep(Step):
    """A step as a later version may make it."""

    later: Tensor | None = None
    even_later: Mapping[str, float] | None = None


def future_fields(algorithm: Algorithm) -> None:
    """Fields, columns and totals that a later version may add to `Step` change nothing."""
    for view in views(algorithm):
        step = make_step(algorithm, view)
        more = torch.full((size(step),), 3.0, dtype=torch.float64)
        later = FutureStep(
            **{f.name: getattr(step, f.name) for f in fields(Step)},
            later=more,
            even_later={"a": 1.0},
        )
        later = replace(
            later,
            columns={"a_later_column": more, **step.columns},
            totals={"a_later_column": more.sum(-1, keepdim=True), **step.totals},
        )
        require_close(
            algorithm.loss(later),
            algorithm.loss(step),
            "what a later version adds to the step changes the loss",
        )


def implied_preference(algorithm: Algorithm) -> None:
    """What the algorithm implies, if anything, is a probability per pair, shape (..., N)."""
    pairs = _Pairs()
    # what evaluation has: no KL at every token
    step = with_state(algorithm, without_kl(make_step(pairs), pairs.groups))
    claimed = algorithm.implied_preference(step)
    if claimed is None:
        raise NotApplicable("it implies no preference probability")
    require(
        claimed.shape == (size(step),),
        f"implied_preference() returns shape {tuple(claimed.shape)} for {size(step)} pairs",
    )
    claimed = claimed.detach()
    inside = bool(((claimed >= 0) & (claimed <= 1)).all())
    require(
        inside,
        f"implied_preference() returns values from {float(claimed.min()):.3g} to {float(claimed.max()):.3g}",
    )
    swapped = replace(
        step,
        policy={"chosen": step.policy["rejected"], "rejected": step.policy["chosen"]},
        reference={"chosen": step.reference["rejected"], "rejected": step.reference["chosen"]},
    )
    other = algorithm.implied_preference(swapped)
    require(other is not None, "implied_preference() is None for some pairs only")
    assert other is not None
    require_close(
        claimed + other.detach(),
        torch.ones_like(claimed),
        "the probabilities of a pair and of the pair swapped do not sum to 1",
    )


@dataclass(frozen=True)
class _Pairs(Algorithm):
    """Asks for what evaluation scores: both completions, both references."""

    groups = {"chosen": Group(reference=True), "rejected": Group(reference=True)}  # noqa: RUF012
