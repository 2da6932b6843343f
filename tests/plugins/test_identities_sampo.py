"""SamPO: which tokens it draws, that policy and reference share them, and what does not change the draw."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_checks import random_step
from small_worlds import TableTools
from torch import Tensor

import xpo_bench
from xpo_bench import Algorithm, Pair, Scores, Step
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.sampo import SamPO

LOSS = SamPO(0.3)


def step_of(n: int = 40, tokens: int = 7, at: float = 0.0) -> Step:
    step = random_step(LOSS, n, tokens)
    rows = LOSS.shape_data([Pair("x", "a", "b")] * n, TableTools(seed=5))
    columns = {name: torch.tensor(values) for name, values in LOSS.columns(rows).items()}
    return replace(step, columns=columns, state={"step": torch.tensor([at])})


def drawn(algorithm: Algorithm, step: Step, side: str = "policy") -> dict[str, Tensor]:
    """Which tokens the loss reads under the policy, or under the reference, by group: those with a slope."""
    scores = getattr(step, side)
    own = {g: s.token_logps.clone().requires_grad_(True) for g, s in scores.items()}
    changed: dict[str, Any] = {side: {g: Scores(own[g], s.mask) for g, s in scores.items()}}
    moved = replace(step, **changed)
    slopes = torch.autograd.grad(algorithm.loss(moved).sum(), list(own.values()))
    return {g: slope != 0 for g, slope in zip(own, slopes, strict=True)}


def test_as_many_tokens_of_both_sides_as_the_shorter_one_has() -> None:
    step = step_of()
    common = step.policy["chosen"].length.minimum(step.policy["rejected"].length)
    for group, tokens in drawn(LOSS, step).items():
        assert torch.equal(tokens.sum(-1), common.long())
        assert bool((tokens <= step.policy[group].mask).all())


def test_policy_and_reference_take_the_same_tokens() -> None:
    step = step_of()
    mine, reference = drawn(LOSS, step), drawn(LOSS, step, "reference")
    assert all(torch.equal(mine[g], reference[g]) for g in mine)
    equal = LOSS.loss(replace(step, policy=step.reference))
    torch.testing.assert_close(equal, torch.full_like(equal, math.log(2)))


class TwoDraws(SamPO):
    """The reference is drawn from by itself, as in the code of the paper, which scores each model alone."""

    def loss(self, step: Step) -> Tensor:
        other = replace(step, state={"step": step.state["step"] + 1000})
        whole = {g: Scores(torch.zeros_like(s.token_logps), s.mask) for g, s in step.policy.items()}
        mine = super().loss(replace(step, reference=whole))
        theirs = super().loss(replace(other, policy=step.reference, reference=whole))
        return -torch.nn.functional.logsigmoid(_logit(mine) - _logit(theirs))


def _logit(loss: Tensor) -> Tensor:
    return -torch.expm1(loss).log()  # of −log σ(x) = ln(1 + e^−x)


def test_with_two_draws_the_loss_at_the_reference_is_noise() -> None:
    step = step_of()
    equal = TwoDraws(0.3).loss(replace(step, policy=step.reference))
    unequal = step.policy["chosen"].length != step.policy["rejected"].length
    assert float((equal - math.log(2)).abs()[unequal].mean()) > 0.1


def test_at_equal_lengths_it_is_dpo() -> None:
    step = step_of()
    mask = torch.ones_like(step.policy["chosen"].mask)
    full = replace(
        step,
        policy={g: Scores(s.token_logps, mask) for g, s in step.policy.items()},
        reference={g: Scores(s.token_logps, mask) for g, s in step.reference.items()},
    )
    torch.testing.assert_close(LOSS.loss(full), DPO(0.3).loss(full))


def test_every_token_is_drawn_equally_often_and_anew_at_every_step() -> None:
    """3 of 7 tokens, 20,000 draws: each within five standard errors of 3/7, and each pair of 1/7."""
    n, steps = 1000, 20
    masks = {"chosen": torch.ones(n, 7, dtype=torch.bool), "rejected": torch.arange(7).expand(n, 7) < 3}
    logps = torch.full((n, 7), -1.0, dtype=torch.float64)
    step = step_of(n)
    step = replace(
        step,
        policy={g: Scores(logps, mask) for g, mask in masks.items()},
        reference={g: Scores(logps, mask) for g, mask in masks.items()},
    )
    found = torch.stack(
        [drawn(LOSS, replace(step, state={"step": torch.tensor([float(t)])}))["chosen"] for t in range(steps)]
    ).double()
    assert float((found[0] == found[1]).all(-1).double().mean()) < 0.1  # 1/35 by chance
    flat = found.flatten(0, 1)
    together = flat.T @ flat / len(flat)
    for i in range(7):
        for j in range(i + 1):
            expected = 3 / 7 if i == j else 1 / 7
            error = math.sqrt(expected * (1 - expected) / len(flat))
            assert abs(float(together[i, j]) - expected) < 5 * error, (i, j)


def test_the_draw_is_the_rows_own() -> None:
    step = step_of()
    values = LOSS.loss(step)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))

    def part(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {g: s.map(lambda v: torch.nn.functional.pad(v[order], (2, 3))) for g, s in scores.items()}

    other = replace(
        step,
        policy=part(dict(step.policy)),
        reference=part(dict(step.reference)),
        columns={"key": step.columns["key"][order].double()},
    )
    torch.testing.assert_close(LOSS.loss(other), values[order])
    torch.testing.assert_close(LOSS.loss(step_of()), values)
    again = LOSS.shape_data([Pair("x", "a", "b")] * 40, TableTools(seed=6))
    keys = torch.tensor(LOSS.columns(again)["key"])
    assert not torch.allclose(LOSS.loss(replace(step, columns={"key": keys})), values)
    assert torch.equal(LOSS.next_state(step)["step"], torch.tensor([1.0]))


def test_evenly_spread_log_probabilities_have_one_draw() -> None:
    """What a tabular policy with lengths gives: min/len of each side's log-ratio, whatever is drawn."""
    step = step_of()

    def even(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {g: Scores((s.mean[:, None] * s.mask), s.mask) for g, s in scores.items()}

    flat = replace(step, policy=even(dict(step.policy)), reference=even(dict(step.reference)))
    first = LOSS.loss(flat)
    torch.testing.assert_close(LOSS.loss(replace(flat, state={"step": torch.tensor([9.0])})), first)


def test_the_layout_of_a_batch_does_not_change_a_run(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = [("yes", "certainly not at all"), ("a long and winding answer", "no"), ("ab", "abcdefgh")]
    lines = [
        json.dumps({"prompt": f"q{i}", "chosen": good, "rejected": bad})
        for i, (good, bad) in enumerate(texts * 2)
    ]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def margins(name: str, **layout: Any) -> list[float | None]:
        words: dict[str, Any] = {f"task.{k}": v for k, v in layout.items()}
        where = tmp_path / name
        result = xpo_bench.run(
            ["sampo"],
            data=str(rows),
            model="tiny",
            seeds=2,
            steps=3,
            batch_size=4,
            lr=3e-3,
            out=where,
            set=words,
        )
        assert result.ok
        return [cell["metrics"]["rejected_logp"] for cell in result.cells]

    plain = margins("plain")
    for layout in ({"micro_batch": 2}, {"packing": False}, {"ensemble": 2}):
        assert margins(next(iter(layout)), **layout) == pytest.approx(plain, rel=1e-3)
