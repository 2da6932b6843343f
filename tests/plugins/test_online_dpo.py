"""Online DPO: samples of the current policy, labels by the fitted reward, and where either label leads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loss_checks import random_step
from narrow import present
from small_worlds import REFERENCE, TableTools, log, pair_step

import xpo_bench
from xpo_bench import Pair
from xpo_bench_plugins.algorithms.online_dpo import OnlineDPO

PAIRS = [Pair("x", c, r) for c, r in ("ba", "ca", "cb", "db", "dc", "da", "cd", "ab", "bc", "ad")]


def reward_of(tools: TableTools) -> torch.Tensor:
    return torch.tensor(tools.fit_reward(PAIRS, 0.01)(tools.actions("x")), dtype=torch.float64)


def test_pairs_come_from_the_current_policy_for_the_prompts_of_the_batch() -> None:
    tools = TableTools()
    tools.examples = [*PAIRS, Pair("y", "b", "a")]
    tools.current = np.log([1e-9, 0.5, 0.5, 1e-9])  # the reference would draw `a` most often
    algorithm = OnlineDPO(pairs=200, epochs=3)
    (stage,) = algorithm.stages()
    assert (stage.refresh, stage.reference) == (3, "initial")
    pairs: Any = algorithm.shape_data([Pair("x", "b", "a"), Pair("x", "c", "a")], tools)
    assert {p.prompt for p in pairs} == {"x"}
    assert {text for p in pairs for text in (p.chosen, p.rejected)} == {"b", "c"}
    assert tools.fitted == [tools.examples]  # to all rows, not to the batch
    assert 80 < len(pairs) < 120
    assert tools.notes["identical_share"] == pytest.approx(1 - len(pairs) / 200)


def test_the_larger_fitted_reward_wins() -> None:
    tools = TableTools()
    tools.examples = PAIRS
    reward = reward_of(tools).tolist()
    pairs: Any = OnlineDPO(pairs=100).shape_data(PAIRS, tools)
    assert len({(p.chosen, p.rejected) for p in pairs}) == 6  # every unordered pair, one way only
    assert all(reward["abcd".index(p.chosen)] > reward["abcd".index(p.rejected)] for p in pairs)


def test_drawn_labels_follow_bradley_and_terry() -> None:
    tools = TableTools()
    tools.examples = PAIRS
    pairs: Any = OnlineDPO(pairs=20_000, labels="bradley_terry").shape_data(PAIRS, tools)
    reward = reward_of(tools)
    for low, high in ("ab", "ad", "cd"):
        won = [p.chosen == high for p in pairs if {p.chosen, p.rejected} == {low, high}]
        expected = torch.sigmoid(reward["abcd".index(high)] - reward["abcd".index(low)])
        assert np.mean(won) == pytest.approx(float(expected), abs=4 / 2 / np.sqrt(len(won)))


def test_equal_rewards_are_a_fair_coin() -> None:
    tools = TableTools((0.5, 0.5))
    tools.examples = [Pair("x", "a", "b"), Pair("x", "b", "a")]
    pairs: Any = OnlineDPO(pairs=4000).shape_data(tools.examples, tools)
    assert np.mean([p.chosen == "a" for p in pairs]) == pytest.approx(0.5, abs=0.05)


def train(algorithm: OnlineDPO, steps: int, lr: float) -> torch.Tensor:
    """Log-probabilities after gradient descent with fresh pairs at every step."""
    tools = TableTools(seed=2)
    tools.examples = PAIRS
    fitted = tools.fit_reward(PAIRS, algorithm.reward_weight_decay)
    tools.fit_reward = lambda pairs, weight_decay: fitted  # type: ignore[method-assign]
    logits = log(REFERENCE).clone().requires_grad_(True)
    for _ in range(steps):
        logp = logits.log_softmax(-1)
        tools.current = logp.detach().numpy()
        pairs: Any = algorithm.shape_data(PAIRS, tools)
        chosen, rejected = (
            ["abcd".index(getattr(p, side)) for p in pairs] for side in ("chosen", "rejected")
        )
        loss = algorithm.loss(pair_step(algorithm, logp, log(REFERENCE), chosen, rejected)).mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= lr * gradient
    return logits.detach().log_softmax(-1)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_with_drawn_labels_it_approaches_the_closed_form(beta: float) -> None:
    """π ∝ π_ref exp(r/β), r fitted, is stationary whatever the pairs' weights, so on policy too."""
    found = train(OnlineDPO(beta=beta, pairs=256, labels="bradley_terry"), 300, 0.5 / beta**2)
    best = (log(REFERENCE) + reward_of(TableTools()) / beta).log_softmax(-1)
    assert float((best.exp() - found.exp()).abs().max()) < 0.03
    assert float((best.exp() - torch.tensor(REFERENCE)).abs().max()) > 0.09


def test_with_labels_by_the_larger_reward_it_moves_to_the_best_completion_at_any_beta() -> None:
    reward = reward_of(TableTools())
    best = int(reward.argmax())
    for beta in (0.5, 2.0):
        found = train(OnlineDPO(beta=beta, pairs=64), 300, 2.0)
        assert float((log(REFERENCE) + reward / beta).softmax(-1)[best]) < 0.6
        assert float(found[best].exp()) > 0.85


def test_a_policy_of_one_text_takes_steps_of_gradient_zero() -> None:
    tools = TableTools()
    tools.examples = PAIRS
    tools.current = np.log([1.0, 1e-300, 1e-300, 1e-300])
    algorithm = OnlineDPO()
    pairs: Any = algorithm.shape_data(PAIRS, tools)
    assert [(p.chosen, p.rejected) for p in pairs] == [("a", "a")]
    assert tools.notes["identical_share"] == 1
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = algorithm.loss(pair_step(algorithm, logits.log_softmax(-1), log(REFERENCE), [0], [0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.tolist() == [0.0] * 4


def test_a_preference_is_implied_by_drawn_labels_only() -> None:
    assert OnlineDPO().implied_preference(random_step(OnlineDPO())) is None
    assert OnlineDPO(labels="bradley_terry").implied_preference(random_step(OnlineDPO())) is not None
    assert OnlineDPO.kl_strength is None


def certain(path: Path) -> str:
    path.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n")
    return str(path)


def test_it_outlives_its_own_collapse_on_a_table(tmp_path: Path) -> None:
    """The policy ends on one completion; every later refresh finds identical texts only."""
    words: dict[str, Any] = {
        "data": certain(tmp_path / "p.jsonl"),
        "model": "tabular",
        "seeds": 2,
        "steps": 400,
        "lr": 0.2,
    }
    result = xpo_bench.run(algos="online_dpo", out=tmp_path / "run", **words)
    assert [c["status"] for c in result.cells] == ["ok", "ok"]
    for cell in result.cells:
        assert present(cell["final_policy"])["x"]["a"] > 0.99
        assert cell["notes"]["identical_share"] == 1


def test_on_a_language_model_a_seed_gives_one_curve_and_the_reward_rises(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    def run(name: str, steps: int) -> tuple[float, list[float]]:
        words: dict[str, Any] = {"steps": steps, "set": {"online_dpo.pairs": 8, "task.kl_samples": 16}}
        result = xpo_bench.run(
            algos="online_dpo", tasks="overfit_pair", seeds=1, out=tmp_path / name, **words
        )
        (cell,) = result.cells
        assert cell["status"] == "ok", cell["error"]
        curve = pq.read_table(tmp_path / name / "curves" / f"{cell['key']}.parquet").to_pydict()
        return cell["notes"]["sampled_reward"], [v for v in curve["loss"] if v is not None]

    (start, _), (end, losses), (_, again) = run("short", 1), run("one", 30), run("two", 30)
    assert losses == again
    assert len(set(losses)) > 5
    assert end > start + 0.5
