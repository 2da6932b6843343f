"""RLOO and GRPO: whose gradient they have, and where they end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from loss_checks import random_step
from narrow import present
from small_worlds import REFERENCE, REWARD, TableTools, log, one_token

import xpo_bench
from xpo_bench import Pair, Step
from xpo_bench_plugins.algorithms.grpo import GRPO
from xpo_bench_plugins.algorithms.ppo import PPO
from xpo_bench_plugins.algorithms.rloo import RLOO

PAIRS = [Pair("x", c, r) for c, r in ("ba", "ca", "cb", "db", "dc", "da", "cd", "ab", "bc", "ad")]


def gradient(algorithm: Any, tools: TableTools) -> torch.Tensor:
    """Of one step on samples of the tools' current policy, in the logits of the table."""
    rows = algorithm.shape_data(PAIRS, tools)
    logits = torch.tensor(tools.current, requires_grad=True)
    index = [tools.texts.index(row.completion) for row in rows]
    columns = {k: torch.tensor(v, dtype=torch.float64) for k, v in algorithm.columns(rows).items()}
    step = Step(
        {"completion": one_token(logits.log_softmax(-1)[index])},
        {"completion": one_token(torch.tensor(tools.reference)[index])},
        columns,
    )
    (out,) = torch.autograd.grad(algorithm.loss(step).mean(), logits)
    return out


def tools_at(policy: tuple[float, ...], seed: int = 0) -> TableTools:
    tools = TableTools(seed=seed)
    tools.examples = PAIRS
    tools.current = np.log(policy)
    return tools


def test_rloo_has_the_gradient_of_ppo_with_one_step_per_batch() -> None:
    policy = (0.1, 0.2, 0.3, 0.4)
    for samples in (2, 8):
        one = gradient(RLOO(beta=0.3, samples=samples), tools_at(policy))
        torch.testing.assert_close(one, gradient(PPO(beta=0.3, samples=samples), tools_at(policy)))
        assert float(one.abs().max()) > 1e-3


def world_files(folder: Path) -> dict[str, Any]:
    """Pairs that compare every two actions alike, and the world with its reward, as options of a run."""
    rows = []
    for i, a in enumerate("abcd"):
        for j, b in enumerate("abcd"):
            wins = round(40 / (1 + np.exp(REWARD[j] - REWARD[i])))
            rows += [{"prompt": "x", "chosen": a, "rejected": b}] * (wins if i != j else 0)
    known = {
        "reference": dict(zip("abcd", REFERENCE, strict=True)),
        "reward": dict(zip("abcd", REWARD, strict=True)),
    }
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "w.json").write_text(json.dumps({"x": known}))
    return {"data": str(folder / "p.jsonl"), "world": str(folder / "w.json"), "model": "tabular", "seeds": 1}


def policies(folder: Path, **words: Any) -> list[np.ndarray]:
    result = xpo_bench.run(out=folder / "run", **words)
    assert result.ok, [cell["error"] for cell in result.cells]
    return [np.array([present(c["final_policy"])["x"][t] for t in "abcd"]) for c in result.cells]


class NamedRLOO(RLOO):
    name: ClassVar[str] = "twin"


class NamedPPO(PPO):
    name: ClassVar[str] = "twin"


def test_a_run_of_rloo_is_a_run_of_ppo_with_one_step_per_batch(tmp_path: Path) -> None:
    """Under one name, since what an algorithm samples is drawn from a stream of its name."""
    words = {**world_files(tmp_path), "optimizer": "sgd", "steps": 60, "lr": 0.5}
    (rloo,) = policies(tmp_path / "rloo", algos=[NamedRLOO(beta=0.5, samples=8)], **words)
    (ppo,) = policies(tmp_path / "ppo", algos=[NamedPPO(beta=0.5, samples=8)], **words)
    assert rloo == pytest.approx(ppo, abs=1e-9)
    assert np.abs(rloo - np.array(REFERENCE)).max() > 0.1


def test_rloo_approaches_the_closed_form_on_the_true_reward(tmp_path: Path) -> None:
    words = {"rloo.beta": 1.0, "rloo.samples": 64, "rloo.reward": "true"}
    (found,) = policies(tmp_path, algos="rloo", steps=800, lr=0.02, set=words, **world_files(tmp_path))
    best = np.array(REFERENCE) * np.exp(REWARD)
    assert found == pytest.approx(best / best.sum(), abs=0.02)


def forward_kl_optimum(beta: float) -> np.ndarray:
    """argmax E r − β·KL(π_ref ‖ π): β π_ref/(λ − r), λ above the largest reward by bisection."""
    reference, reward = np.array(REFERENCE), np.array(REWARD)
    low, high = reward.max(), reward.max() + beta
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (beta * reference / (middle - reward)).sum() > 1 else (low, middle)
    return np.asarray(beta * reference / (high - reward))


def test_grpo_without_the_deviation_ends_at_the_optimum_of_the_other_kl(tmp_path: Path) -> None:
    """Its β weighs KL(π_ref‖π), whose optimum is not π_ref exp(r/β)."""
    words = {"grpo.beta": 1.0, "grpo.samples": 64, "grpo.reward": "true", "grpo.scale": "none"}
    (found,) = policies(tmp_path, algos="grpo", steps=800, lr=0.02, set=words, **world_files(tmp_path))
    closed_form = np.array(REFERENCE) * np.exp(REWARD)
    closed_form /= closed_form.sum()
    assert found == pytest.approx(forward_kl_optimum(1.0), abs=0.025)
    assert np.abs(forward_kl_optimum(1.0) - closed_form).max() > 0.035


def test_the_penalty_of_grpo_on_samples_of_the_policy_has_the_gradient_of_the_other_kl() -> None:
    policy, reference = torch.tensor((0.1, 0.2, 0.3, 0.4)).double().log(), log(REFERENCE)
    logits = policy.clone().requires_grad_(True)
    logp = logits.log_softmax(-1)
    zero = torch.zeros(4, dtype=torch.float64)
    columns = {"advantage": zero, "old_logp": policy}
    step = Step({"completion": one_token(logp)}, {"completion": one_token(reference)}, columns)
    (found,) = torch.autograd.grad((policy.exp() * GRPO(beta=1.0).loss(step)).sum(), logits)
    forward = (reference.exp() * (reference - logits.log_softmax(-1))).sum()
    torch.testing.assert_close(found, torch.autograd.grad(forward, logits)[0])


def test_advantages_of_grpo_know_neither_origin_nor_unit_of_rewards() -> None:
    reward = np.array([[0.3, 1.0, -2.0, 0.4], [5.0, 5.0, 5.0, 5.0]])
    scaled, plain = GRPO()._advantage(reward), GRPO(scale="none")._advantage(reward)
    assert GRPO()._advantage(1000 * reward + 7) == pytest.approx(scaled, rel=1e-3)
    assert GRPO(scale="none")._advantage(reward + 7) == pytest.approx(plain)
    assert scaled[0].std(ddof=1) == pytest.approx(1, rel=1e-3)
    assert scaled[1].tolist() == [0.0] * 4  # equal rewards say nothing


@pytest.mark.parametrize("lengths", ["mean", "sum"])
def test_grpo_on_its_own_samples_is_the_policy_gradient_over_tokens(lengths: Any) -> None:
    algorithm = GRPO(beta=0.0, lengths=lengths)
    step = random_step(algorithm)
    scores = step.policy["completion"]
    leaf = scores.token_logps.clone().requires_grad_(True)
    moved = replace(scores, token_logps=leaf)
    step = replace(
        step, policy={"completion": moved}, columns={**step.columns, "old_logp": moved.sum.detach()}
    )
    (found,) = torch.autograd.grad(algorithm.loss(step).sum(), leaf)
    share = 1.0 if lengths == "sum" else 1 / scores.length[:, None]
    torch.testing.assert_close(found, -step.columns["advantage"][:, None] * share * scores.mask)


def test_beyond_the_interval_grpo_has_no_gradient() -> None:
    logp = torch.tensor([0.5, 0.1, 0.5], dtype=torch.float64, requires_grad=True)
    columns = {
        "advantage": torch.tensor([1.0, 1.0, -1.0]).double(),
        "old_logp": torch.zeros(3, dtype=torch.float64),
    }
    scores = one_token(torch.zeros(3, dtype=torch.float64))
    step = Step({"completion": one_token(logp)}, {"completion": scores}, columns)
    (found,) = torch.autograd.grad(GRPO(beta=0.0, clip=0.2).loss(step).sum(), logp)
    assert found.tolist() == pytest.approx([0.0, -np.exp(0.1), np.exp(0.5)])


def test_a_task_that_states_no_reward_refuses_the_true_one(tmp_path: Path) -> None:
    words = world_files(tmp_path)
    del words["world"]
    result = xpo_bench.run(algos="rloo", steps=2, out=tmp_path / "run", set={"rloo.reward": "true"}, **words)
    (cell,) = result.cells
    assert cell["status"] == "failed"
    assert "rloo" in present(cell["error"])["message"]
    assert "states no true reward" in present(cell["error"])["message"]
