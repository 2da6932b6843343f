"""Builders of small evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation, WorldEvaluation

REF = np.array([0.4, 0.3, 0.2, 0.1])
REWARD = np.array([0.0, 0.5, 1.0, 1.5])


@pytest.fixture
def pairs() -> Callable[..., Evaluation]:
    """An evaluation of pairs from rows of log-probabilities; what is not given is neutral."""

    def build(chosen: Any, rejected: Any, step: int = 0, **more: Any) -> Evaluation:
        c, r = np.atleast_2d(np.asarray(chosen, float)), np.atleast_2d(np.asarray(rejected, float))
        values: dict[str, Any] = {
            "chosen_length": np.ones_like(c),
            "rejected_length": np.ones_like(r),
            "chosen_ref": np.zeros_like(c),
            "rejected_ref": np.zeros_like(r),
            "p_chosen": np.full_like(c, np.nan),
            "valid": np.ones(c.shape, bool),
        }
        values |= {k: np.atleast_2d(v) if isinstance(v, list) else v for k, v in more.items()}
        return Evaluation(step=step, chosen_logp=c, rejected_logp=r, **values)

    return build


@pytest.fixture
def world() -> Callable[..., WorldEvaluation]:
    """A world of one or more prompts from policies of shape (R, P, A) or (R, A)."""

    def build(
        policy: Any, ref: Any = REF, reward: Any = REWARD, mask: Any = None, weight: Any = None
    ) -> WorldEvaluation:
        p = np.asarray(policy, float)
        p = p[:, None] if p.ndim == 2 else p
        ref, reward = (
            np.atleast_2d(np.asarray(ref, float)),
            None if reward is None else np.atleast_2d(np.asarray(reward, float)),
        )
        mask = np.ones(ref.shape, bool) if mask is None else np.asarray(mask)
        weight = np.full(p.shape[:2], 1 / p.shape[1]) if weight is None else np.asarray(weight, float)
        with np.errstate(divide="ignore"):
            return WorldEvaluation(
                logp=np.log(p),
                ref_logp=np.where(mask, np.log(ref), -np.inf),
                mask=mask,
                reward=reward,
                prompt_weight=weight,
            )

    return build
