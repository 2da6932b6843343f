"""Losses and gradients of RLOO and GRPO against those of TRL's trainers, on the same scores."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from loss_checks import random_step
from torch import Tensor

from xpo_bench import Algorithm, Step
from xpo_bench_plugins.algorithms.grpo import GRPO
from xpo_bench_plugins.algorithms.rloo import RLOO


def moved(algorithm: Algorithm, away: float) -> tuple[Step, Tensor, Tensor]:
    """A step, its leaf of log-probabilities per token, and the old ones, within `away` nats of them."""
    step = random_step(algorithm, n=8)
    scores = step.policy["completion"]
    leaf = scores.token_logps.clone().requires_grad_(True)
    noise = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(3), dtype=leaf.dtype)
    old = (scores.token_logps + away * noise).masked_fill(~scores.mask, 0.0)
    columns = {**step.columns, "old_logp": old.sum(-1)}
    return replace(step, policy={"completion": replace(scores, token_logps=leaf)}, columns=columns), leaf, old


def theirs(trainer: Any, step: Step, old: Tensor, **settings: Any) -> Tensor:
    """TRL's loss, from the trainer's method on a stand-in that has the scores already."""
    scores = step.policy["completion"]
    alike = SimpleNamespace(reduce=lambda values, reduction: values, gather=lambda values: values)
    self = SimpleNamespace(
        accelerator=alike,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            scores.token_logps.masked_fill(~scores.mask, 0.0),
            torch.zeros_like(scores.token_logps),
            None,
        ),
        aux_loss_enabled=False,
        current_gradient_accumulation_steps=1,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        **settings,
    )
    inputs = {name: torch.ones(8, 1, dtype=torch.long) for name in ("prompt_ids", "prompt_mask")}
    inputs |= {
        "completion_ids": scores.mask.long(),
        "completion_mask": scores.mask.long(),
        "advantages": step.columns["advantage"],
        "old_per_token_logps": old,
        "old_logps": old.sum(-1),
    }
    if step.reference:
        reference = step.reference["completion"]
        inputs["ref_per_token_logps"] = reference.token_logps.masked_fill(~scores.mask, 0.0)
    found = trainer._compute_loss(self, None, inputs)
    assert isinstance(found, Tensor)
    return found


def assert_equal(mine: Tensor, other: Tensor, leaf: Tensor) -> None:
    torch.testing.assert_close(mine, other, atol=1e-9, rtol=1e-9)
    one, two = (torch.autograd.grad(value, leaf)[0] for value in (mine, other))
    torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)
    assert float(one.abs().max()) > 1e-3


def test_grpo_is_equal_with_one_step_per_batch() -> None:
    import trl

    step, leaf, old = moved(GRPO(beta=0.3), 0.0)
    settings = {"beta": 0.3, "loss_type": "grpo", "importance_sampling_level": "token"}
    other = theirs(trl.GRPOTrainer, step, old, **settings)
    assert_equal(GRPO(beta=0.3).loss(step).mean(), other, leaf)


def test_beyond_one_step_the_ratio_of_grpo_is_that_of_sequences() -> None:
    """TRL takes ratios of tokens by default, as the paper does, and those of sequences when asked."""
    import trl

    step, leaf, old = moved(GRPO(beta=0.3), 0.3)
    mine = GRPO(beta=0.3).loss(step).mean()
    settings = {"beta": 0.3, "loss_type": "grpo"}
    assert_equal(
        mine, theirs(trl.GRPOTrainer, step, old, importance_sampling_level="sequence", **settings), leaf
    )
    tokens = theirs(trl.GRPOTrainer, step, old, importance_sampling_level="token", **settings)
    assert abs(float((tokens - mine).detach())) > 1e-3


def test_rloo_has_the_gradient_of_trl_s_and_not_its_value() -> None:
    """TRL clips the ratio to the policy that sampled; at one step per batch it is 1."""
    import trl

    step, leaf, old = moved(RLOO(), 0.0)
    other = theirs(trl.RLOOTrainer, step, old)
    mine = RLOO().loss(step).mean()
    one, two = (torch.autograd.grad(value, leaf)[0] for value in (mine, other))
    torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)
    assert float(one.abs().max()) > 1e-3
    assert float(other.detach()) == pytest.approx(-float(step.columns["advantage"].mean()))
