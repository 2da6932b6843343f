"""Scores that are changed, padded and joined keep what belongs to a token together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xpo_bench.contract.scoring import DERIVED, Scores, Step
from xpo_bench.train.score_ops import joined


def scores(rows: int, width: int, kl: bool = True) -> Scores:
    generator = torch.Generator().manual_seed(10 * rows + width)
    logps = -torch.rand(2, rows, width, dtype=torch.float64, generator=generator)
    mask = torch.arange(width) < torch.tensor([[1 + i % width] for i in range(rows)])
    return Scores(logps, mask.expand(2, -1, -1), logps.square() if kl else None)


def picked(values: Tensor) -> Tensor:
    return values[:, 1:]


def test_map_changes_all_tensors_and_derives_anew() -> None:
    whole = scores(3, 4)
    part = whole.map(picked)
    assert torch.equal(part.token_logps, whole.token_logps[:, 1:])
    assert torch.equal(part.mask, whole.mask[:, 1:])
    assert part.token_kl is not None
    assert torch.equal(part.token_kl, whole.token_logps[:, 1:].square())
    assert not set(DERIVED) & set(vars(part))
    assert torch.equal(part.sum, whole.sum[:, 1:])


def test_map_carries_what_is_known_if_told_how() -> None:
    whole = scores(3, 4, kl=False)
    assert "mean" not in vars(whole.map(picked, derived=picked))
    for name in DERIVED:
        getattr(whole, name)
    part = whole.map(picked, derived=picked)
    for name in DERIVED:
        assert torch.equal(vars(part)[name], getattr(whole, name)[:, 1:])
    assert part.token_kl is None


def test_detached_scores_have_no_graph_anywhere() -> None:
    logps = torch.zeros(1, 2, 3, requires_grad=True)
    whole = Scores(logps, torch.ones(1, 2, 3, dtype=torch.bool), 2 * logps)
    assert whole.mean.requires_grad
    found = whole.detach()
    assert found.token_kl is not None
    assert not any(t.requires_grad for t in (found.token_logps, found.token_kl, found.mean, found.sum))


def test_padding_adds_tokens_off_the_mask() -> None:
    narrow = scores(3, 2)
    wide = narrow.pad(5)
    assert wide.token_logps.shape == wide.mask.shape == (2, 3, 5)
    assert wide.token_kl is not None
    assert wide.token_kl.shape == (2, 3, 5)
    assert not wide.mask[..., 2:].any()
    assert torch.equal(wide.sum, narrow.sum)
    assert torch.equal(wide.mean, narrow.mean)
    assert torch.equal(wide.sequence_kl, narrow.sequence_kl)
    assert narrow.pad(2) is narrow
    assert narrow.pad(1) is narrow


@pytest.mark.parametrize("widths", [(2, 2), (4, 1, 3)])
def test_joined_rows_are_the_rows(widths: tuple[int, ...]) -> None:
    parts = [scores(2 + i, width) for i, width in enumerate(widths)]
    whole = Scores.cat(parts)
    assert whole.mask.shape == (2, sum(p.mask.shape[1] for p in parts), max(widths))
    torch.testing.assert_close(whole.sum, torch.cat([p.sum for p in parts], -1), rtol=0, atol=0)
    torch.testing.assert_close(whole.sequence_kl, torch.cat([p.sequence_kl for p in parts], -1))
    assert Scores.cat([parts[0], scores(3, 2, kl=False)]).token_kl is None


def test_runs_are_joined_along_their_axis() -> None:
    one, two = scores(3, 2), scores(3, 4)
    both = Scores.cat([one, two], 0)
    assert both.mask.shape == (4, 3, 4)
    assert torch.equal(both.sum, torch.cat([one.sum, two.sum]))


def test_micro_batches_without_a_weight_count_once() -> None:
    first = Step({"chosen": scores(2, 3)}, columns={"c": torch.ones(2, 2)})
    second = Step({"chosen": scores(1, 2)}, columns={"c": torch.zeros(2, 1)}, weight=torch.zeros(2, 1))
    whole = joined([first, second])
    assert whole.weight is not None
    assert whole.weight.tolist() == [[1, 1, 0]] * 2
    assert whole.columns["c"].tolist() == [[1, 1, 0]] * 2
    assert joined([first]) is first
