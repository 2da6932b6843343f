"""length_bias: an exact world with completions of several lengths, against its stated law."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from narrow import as_a, numbers, present

import xpo_bench
from xpo_bench import Algorithm, Completion, ModelSpec, Pair, Stage, Step, Tools, World
from xpo_bench.data.dataset import fingerprint
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.result import Result
from xpo_bench_plugins.tasks.bandit import Bandit
from xpo_bench_plugins.tasks.length_bias import LengthBias, standardised

Run = Callable[..., Result]
TABULAR = ModelSpec()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`xpo_bench.run`, each in a directory of its own."""
    numbered = itertools.count()

    def small(**words: Any) -> Result:
        return xpo_bench.run(out=tmp_path / str(next(numbered)), **words)

    return small


def world_of(task: LengthBias) -> World:
    return present(task.data(0, TABULAR).world)


def by_algorithm(result: Result) -> dict[str, dict[str, float]]:
    return {cell["algorithm"]["name"]: numbers(cell["metrics"]) for cell in result.cells}


def test_the_world_is_fixed_and_its_lengths_have_nothing_to_do_with_the_bias() -> None:
    world = world_of(LengthBias())
    assert world == world_of(LengthBias(length_bias=0.0, pairs=64, heldout_pairs=0))
    lengths = [n for of in world.lengths.values() for n in of.values()]
    assert min(lengths) >= 1
    assert max(lengths) <= 12
    assert len(set(lengths)) > 6
    fewer = world_of(LengthBias(prompts=3))
    assert list(fewer.lengths.values()) == list(world.lengths.values())[:3]
    one, two = (LengthBias().data(seed, TABULAR) for seed in (0, 1))
    assert one.train != two.train
    assert fingerprint(one) != fingerprint(two)


def test_lengths_are_part_of_the_data_s_fingerprint() -> None:
    dataset = LengthBias().data(0, TABULAR)
    assert {prompt: list(of) for prompt, of in present(dataset.world).lengths.items()} == {
        prompt: list(texts) for prompt, texts in present(dataset.world).actions.items()
    }
    without = replace(dataset, world=replace(present(dataset.world), lengths={}))
    assert fingerprint(without) != fingerprint(dataset)


@pytest.mark.parametrize("longest", [2, 3])
def test_every_prompt_has_completions_of_two_lengths_at_least(longest: int) -> None:
    world = world_of(LengthBias(prompts=200, actions=2, longest=longest, pairs=400))
    assert all(len(set(of.values())) == 2 for of in world.lengths.values())
    for prompt in standardised(world).values():
        assert np.mean(list(prompt.values())) == pytest.approx(0)
        assert np.std(list(prompt.values())) == pytest.approx(1)


def test_labels_follow_the_stated_law() -> None:
    """Training labels by reward and length, held-out ones by the reward; p_chosen by the reward."""
    task = LengthBias(prompts=1, actions=3, pairs=30_000, heldout_pairs=30_000)
    dataset = task.data(3, TABULAR)
    world = present(dataset.world)
    (prompt,), length = world.actions, standardised(world)
    reward = world.reward[prompt]
    for rows, bias in ((dataset.train, task.length_bias), (dataset.heldout, 0.0)):
        won = Counter((as_a(Pair, e).chosen, as_a(Pair, e).rejected) for e in rows)
        for a, b in (("y0", "y1"), ("y0", "y2"), ("y1", "y2")):
            n = won[a, b] + won[b, a]
            p = 1 / (1 + math.exp(reward[b] - reward[a] + bias * (length[prompt][b] - length[prompt][a])))
            assert won[a, b] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n) + 1e-3)
        for e in (as_a(Pair, row) for row in rows[:50]):
            assert e.p_chosen == pytest.approx(1 / (1 + math.exp(reward[e.rejected] - reward[e.chosen])))


def test_a_completion_of_n_tokens_has_its_log_probability_spread_over_them() -> None:
    world = World(
        actions={"x": ("a", "b", "c")},
        reference={"x": {"a": 0.5, "b": 0.3, "c": 0.2}},
        lengths={"x": {"a": 1, "b": 4}},  # c: one, where nothing is said
    )
    policy = TabularPolicy(world, 2)
    at = policy.stack([policy.encode([Completion("x", text) for text in "abc"])] * 2)
    assert policy.lengths(at).tolist() == [[1, 4, 1]] * 2
    policy.begin()
    for scores in (policy.score({"g": (at, None)}, grad=True)["g"], policy.score_all(at)):
        logp = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
        assert scores.token_logps.shape == (2, 3, 4)
        assert scores.length.tolist() == [[1, 4, 1]] * 2
        torch.testing.assert_close(scores.sum, logp.expand(2, 3))
        torch.testing.assert_close(scores.mean, (logp / torch.tensor([1, 4, 1])).expand(2, 3))
        assert scores.mask.sum(-1).tolist() == [[1, 4, 1]] * 2
    kl = policy.score({"g": (at, None)}, grad=False, against=policy.snapshot())["g"]
    torch.testing.assert_close(kl.sequence_kl, torch.zeros(2, 3, dtype=torch.float64))


def test_losses_that_read_lengths_differ_here_and_not_on_the_bandit(run: Run) -> None:
    """ipo on sums and on means per token: one number on the bandit, two here."""
    both = {"ipo.normalize": ["none", "tokens"], "ipo.train.lr": 0.05}
    for task, same in ((Bandit, True), (LengthBias, False)):
        result = run(algos=["ipo"], tasks=[task], steps=50, seeds=1, set=both)
        one, two = (numbers(cell["metrics"]) for cell in result.cells)
        for name in ("kl", "gold_reward", "attained", "rejected_logp"):
            assert (one[name] == two[name]) is same
    seen = by_algorithm(run(algos=["dpo", "simpo"], tasks=[LengthBias], steps=50, seeds=1))
    assert seen["dpo"]["kl"] != seen["simpo"]["kl"]


@dataclass(frozen=True)
class Told(Algorithm):
    """The optimum of r + bias·ℓ at β, in closed form, of a reward that is known and not fitted."""

    name: ClassVar[str] = "told"
    requires: ClassVar[frozenset[str]] = frozenset({"enumerable"})
    bias: float = 0.0
    beta: float = 0.1

    def stages(self) -> Sequence[Stage]:
        return (Stage(solve=True),)

    def solve(self, examples: Sequence[Any], tools: Tools) -> Mapping[Completion, float]:
        world = world_of(LengthBias())
        length = standardised(world)
        return {
            Completion(x, y): (r + self.bias * length[x][y]) / self.beta
            for x, rewards in world.reward.items()
            for y, r in rewards.items()
        }

    def loss(self, step: Step) -> torch.Tensor:
        return -step.log_ratio("chosen")


def test_the_bias_costs_reward_and_the_frontier_knows_how_much(run: Run) -> None:
    """Of r itself everything is attained, and of the reward that labels follow what is computed here."""
    result = run(algos=[Told(), Told(bias=2.0)], tasks=[LengthBias], steps=1, seeds=1)
    by_bias = {c["algorithm"]["config"]["bias"]: c for c in result.cells}
    told = numbers(by_bias[0.0]["metrics"])
    for name in ("attained", "attained_0.3", "attained_1"):
        assert told[name] == pytest.approx(1, abs=1e-9)
    assert told["kl"] < 3  # where the path ends, and so it has less than 3 nats could buy
    assert 0.99 < told["attained_3"] < 1
    assert told["kl"] == pytest.approx(by_bias[0.0]["notes"]["budget_kl"], rel=1e-12)  # β is the task's own
    attained = numbers(by_bias[2.0]["metrics"])
    # the optimum of the biased reward, computed here: π ∝ π_ref·exp(s·(r + bias·ℓ)) at the s of 1 nat
    world = world_of(LengthBias())
    length = standardised(world)

    def at(s: float, bias: float) -> tuple[float, float, float]:
        kl = reward = start = 0.0
        for x, texts in world.actions.items():
            ref = np.array([world.reference[x][y] for y in texts])
            r = np.array([world.reward[x][y] for y in texts])
            weight = ref * np.exp(s * (r + bias * np.array([length[x][y] for y in texts])))
            p = weight / weight.sum()
            kl, reward, start = kl + p @ np.log(p / ref), reward + p @ r, start + ref @ r
        return kl / len(world.actions), reward / len(world.actions), start / len(world.actions)

    def within(bias: float) -> float:
        low, high = 0.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle, bias)[0] <= 1 else (low, middle)
        _, reward, start = at(low, bias)
        return reward - start

    assert attained["attained_1"] == pytest.approx(within(2.0) / within(0.0), abs=1e-9)
    assert attained["attained_1"] < 0.9


def test_every_algorithm_that_fits_runs_here(run: Run) -> None:
    result = run(algos=["all"], tasks=[LengthBias], steps=5, seeds=1)
    assert len(result.cells) > 15
    assert {cell["status"] for cell in result.cells} == {"ok"}
    for cell in result.cells:
        metrics = numbers(cell["metrics"])
        assert "heldout_accuracy_lc" in metrics, cell["algorithm"]["name"]  # both strata are there
        assert 0 <= metrics["attained"] <= 1


def test_it_is_in_the_suite_of_exact_worlds() -> None:
    from xpo_bench.runner.request import read_file, suites

    assert any("length_bias" in block["tasks"] for block in read_file(suites()["exact"]))
    assert xpo_bench.Task.cannot_see == ""
