"""lengths: an exact world of token trees with length-biased labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from narrow import as_a, numbers, present

import xpo_bench
from xpo_bench import Algorithm, ModelSpec, Pair, Step, World, logsigmoid
from xpo_bench.data.dataset import fingerprint
from xpo_bench_plugins.tasks.length_bias import LengthBias
from xpo_bench_plugins.tasks.lengths import Lengths, standardised

TABULAR = ModelSpec()


def world_of(task: Lengths) -> World:
    return present(task.data(0, TABULAR).world)


def by_algorithm(path: Path, **words: Any) -> dict[str, dict[str, float]]:
    words = {"tasks": ["lengths"], "seeds": 1, "steps": 200, **words}
    result = xpo_bench.run(out=path, **words)
    assert {c["status"] for c in result.cells} == {"ok"}
    return {c["algorithm"]["name"]: numbers(c["metrics"]) for c in result.cells}


def test_completions_have_one_to_eight_tokens_and_the_reference_goes_on_with_the_stated_probability() -> None:
    world = world_of(Lengths())
    assert len(world.actions) == 4
    for x, texts in world.actions.items():
        n = np.array([len(text.split()) for text in texts])
        assert sorted(set(n.tolist())) == list(range(1, 9))
        p = np.array([world.reference[x][text] for text in texts])
        assert p.sum() == pytest.approx(1)
        for k in range(1, 8):
            assert p[n > k].sum() / p[n >= k].sum() == pytest.approx(0.7)
    assert world == world_of(Lengths(length_bias=0.0, pairs=64, heldout_pairs=0))
    fewer = world_of(Lengths(prompts=2))
    assert list(fewer.reward.values()) == list(world.reward.values())[:2]


def test_tokens_are_part_of_the_fingerprint() -> None:
    dataset = Lengths().data(0, TABULAR)
    plain = replace(dataset, world=replace(present(dataset.world), tokens=False))
    assert fingerprint(plain) != fingerprint(dataset)


def test_labels_follow_the_stated_law() -> None:
    task = Lengths(prompts=1, longest=2, pairs=30_000, heldout_pairs=30_000)
    dataset = task.data(3, TABULAR)
    world = present(dataset.world)
    (x,), length = world.actions, standardised(world)
    for rows, bias in ((dataset.train, task.length_bias), (dataset.heldout, 0.0)):
        for a, b in (("yes", "go no"), ("no", "go yes"), ("yes", "no")):
            both = [as_a(Pair, e) for e in rows if {as_a(Pair, e).chosen, as_a(Pair, e).rejected} == {a, b}]
            margin = world.reward[x][a] - world.reward[x][b] + bias * (length[x][a] - length[x][b])
            p = 1 / (1 + math.exp(-margin))
            won = np.mean([e.chosen == a for e in both])
            assert won == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / len(both)) + 1e-3)


def test_biased_labels_make_long_completions_and_cost_reward(tmp_path: Path) -> None:
    """Expected length against the reference's, (1 − .7^8)/.3, and the reward that is exact."""
    fair = by_algorithm(tmp_path / "0", algos=["dpo", "simpo", "rlhf"], set={"task.length_bias": 0.0})
    biased = by_algorithm(tmp_path / "2", algos=["dpo", "simpo", "rlhf"])
    reference = (1 - 0.7**8) / 0.3
    for name in ("dpo", "rlhf"):
        assert biased[name]["expected_length"] > 6 > fair[name]["expected_length"]
        assert biased[name]["attained_1"] < fair[name]["attained_1"] - 0.2
    # a mean per token weighs a long completion's tokens less, and with them what the labels say of length
    assert fair["simpo"]["expected_length"] < reference < biased["simpo"]["expected_length"]
    assert biased["simpo"]["expected_length"] < biased["dpo"]["expected_length"]
    assert biased["simpo"]["attained_1"] > biased["dpo"]["attained_1"]


def test_expected_length_is_that_of_the_final_policy(tmp_path: Path) -> None:
    (cell,) = xpo_bench.run(algos=["ipo"], tasks=["lengths"], seeds=1, steps=20, out=tmp_path).cells
    final = present(cell["final_policy"])
    expected = np.mean([sum(p * len(y.split()) for y, p in of.items()) for of in final.values()])
    assert numbers(cell["metrics"])["expected_length"] == pytest.approx(expected, rel=1e-12)


@dataclass(frozen=True)
class Head(Algorithm):
    """A logistic loss of the log-ratio of first tokens alone, or of their completions in equal parts."""

    name: ClassVar[str] = "head"

    def loss(self, step: Step) -> torch.Tensor:
        chosen, rejected = (
            step.policy[g].token_logps[..., 0] - step.reference[g].token_logps[..., 0]
            for g in ("chosen", "rejected")
        )
        return -logsigmoid(chosen - rejected)


def test_where_a_loss_acts_can_be_seen_here_and_not_where_tokens_share_evenly(tmp_path: Path) -> None:
    """First tokens alone decide between stopping and going on, never how a completion ends after that."""

    def ends(task: type[Lengths], path: Path) -> list[float]:
        (cell,) = xpo_bench.run(algos=[Head], tasks=[task], seeds=1, steps=100, out=path).cells
        final, world = present(cell["final_policy"]), world_of(Lengths())
        ratio = {x: {y: p / world.reference[x][y] for y, p in of.items()} for x, of in final.items()}
        # what begins with the same token has moved by one factor
        return [r / ratio["x0"]["go yes"] for y, r in ratio["x0"].items() if y.startswith("go")]

    @dataclass(frozen=True)
    class Even(Lengths):
        """The same completions, their log-probability spread evenly over their tokens."""

        name: ClassVar[str] = "even"

        def data(self, seed: int, model: ModelSpec) -> Any:
            found = super().data(seed, model)
            world = present(found.world)
            lengths = {x: {y: len(y.split()) for y in texts} for x, texts in world.actions.items()}
            return replace(found, world=replace(world, tokens=False, lengths=lengths))

    assert ends(Lengths, tmp_path / "tree") == pytest.approx([1.0] * 14, rel=1e-9)
    even = ends(Even, tmp_path / "even")
    assert max(even) > min(even) + 0.2
    assert LengthBias.cannot_see.startswith("where in a completion a loss acts")


def test_every_algorithm_that_fits_runs_here(tmp_path: Path) -> None:
    result = xpo_bench.run(algos=["all"], tasks=["lengths"], steps=5, seeds=1, out=tmp_path)
    assert len(result.cells) > 15
    assert {c["status"] for c in result.cells} == {"ok"}
    for cell in result.cells:
        assert 0 <= numbers(cell["metrics"])["attained"] <= 1
