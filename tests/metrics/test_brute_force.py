"""Every metric of an exact world against sums written out, action by action, over random worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation, WorldEvaluation
from xpo_bench.metrics.curve import evaluate_point

Pairs = Callable[..., Evaluation]


def drawn(seed: int) -> tuple[WorldEvaluation, float]:
    """Up to five prompts with two to five actions: policies near the reference, far from it, and certain."""
    rng = np.random.default_rng(seed)
    prompts, width = int(rng.integers(1, 6)), 5
    mask = np.arange(width) < rng.integers(2, width + 1, prompts)[:, None]

    def law(concentration: float) -> np.ndarray:
        p: np.ndarray = np.where(mask, rng.gamma(concentration, size=mask.shape) + 1e-12, 0.0)
        p /= p.sum(-1, keepdims=True)
        return p

    ref, runs = law(1.0), [law(0.3), law(1.0), np.where(mask & (np.arange(width) == 1), 1.0, 0.0)]
    runs.append(ref * (1 + 1e-9 * rng.normal(size=ref.shape)))
    runs[-1] /= runs[-1].sum(-1, keepdims=True)
    weight = rng.random((4, prompts)) * (rng.random((4, prompts)) < 0.7)
    weight[:, 0] += 0.1
    reward = np.where(
        mask, rng.normal(size=mask.shape) * 10.0 ** rng.integers(-3, 4) + rng.choice([0.0, 1e4]), np.nan
    )
    with np.errstate(divide="ignore"):
        world = WorldEvaluation(
            logp=np.log(np.stack(runs)),
            ref_logp=np.where(mask, np.log(np.where(mask, ref, 1.0)), -np.inf),
            mask=mask,
            reward=reward,
            prompt_weight=weight / weight.sum(-1, keepdims=True),
            seen=np.broadcast_to(mask & (rng.random(mask.shape) < 0.6), (4, *mask.shape)),
        )
    return world, float(10 ** rng.uniform(-2, 1))


def by_hand(w: WorldEvaluation, run: int, beta: float) -> dict[str, float]:
    total: dict[str, list[float]] = {}
    assert w.reward is not None
    assert w.seen is not None
    for x, weight in enumerate(w.prompt_weight[run]):
        actions = np.flatnonzero(w.mask[x])
        p, q = ([math.exp(logs[a]) for a in actions] for logs in (w.logp[run, x], w.ref_logp[x]))
        r = [float(w.reward[x, a]) for a in actions]
        top = max(r)
        kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        partition = math.fsum(b * math.exp((v - top) / beta) for b, v in zip(q, r, strict=True))
        lost = math.fsum(a * (top - v) for a, v in zip(p, r, strict=True))
        of = {
            "kl": kl,
            "kl_forward": math.fsum(
                b * math.log(b / a) if a > 0 else math.inf for a, b in zip(p, q, strict=True)
            ),
            "entropy": -math.fsum(a * math.log(a) for a in p if a > 0),
            "gold_reward": math.fsum(a * v for a, v in zip(p, r, strict=True)),
            "regret": beta * math.log(partition) + lost + beta * kl,
            "unseen_mass": math.fsum(a for a, i in zip(p, actions, strict=True) if not w.seen[run, x, i]),
        }
        for name, value in of.items():
            if weight > 0:
                total.setdefault(name, []).append(weight * value)
    return {name: math.fsum(values) for name, values in total.items()}


@pytest.mark.parametrize("seed", range(60))
def test_sums_written_out(pairs: Pairs, seed: int) -> None:
    world, beta = drawn(seed)
    rows: Any = np.full((4, 1), -1.0)
    with np.errstate(all="raise", under="ignore"):
        got = evaluate_point(pairs(rows, rows, world=world, kl_strength=np.full(4, beta)))
    for run in range(4):
        for name, value in by_hand(world, run, beta).items():
            if name == "unseen_mass" and name not in got:
                continue
            if math.isnan(got[name][run]):  # no unseen action among the prompts that count
                assert name == "unseen_mass"
                assert value == 0
                continue
            scale = max(1.0, abs(value), beta)
            assert got[name][run] == pytest.approx(value, rel=1e-9, abs=1e-10 * scale), (name, run)
