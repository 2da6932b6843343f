"""Synthetic worlds are fixed by their version, and the pairs drawn from them follow their truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from xpo_bench import Pair, World
from xpo_bench.data.synthetic import (
    Annotators,
    bradley_terry_world,
    covered_actions,
    nuisance,
    preference,
    sample_pairs,
)
from xpo_bench.errors import DataError


@pytest.mark.parametrize(("prompts", "actions"), [(1, 2), (8, 6), (5, 40)])
def test_rewards_span_at_least_eight_and_the_reference_is_not_uniform(prompts: int, actions: int) -> None:
    world = bradley_terry_world("w", "1", prompts, actions)
    assert len(world.actions) == prompts
    for prompt, texts in world.actions.items():
        assert len(set(texts)) == actions
        reward, reference = world.reward[prompt], world.reference[prompt]
        assert tuple(reward) == tuple(reference) == texts
        assert 8 <= max(reward.values()) - min(reward.values()) <= 10
        assert sum(reference.values()) == pytest.approx(1, abs=1e-12)
        assert min(reference.values()) > 0
        assert max(reference.values()) > 1.05 / actions


def test_version_and_name_fix_the_world() -> None:
    world = bradley_terry_world("w", "1", 4, 3)
    assert bradley_terry_world("w", "1", 4, 3) == world
    assert bradley_terry_world("w", "2", 4, 3) != world
    assert bradley_terry_world("v", "1", 4, 3) != world
    larger = bradley_terry_world("w", "1", 6, 3)
    assert {prompt: larger.reward[prompt] for prompt in world.reward} == world.reward


@pytest.mark.parametrize("coverage", [0.01, 0.3, 0.5, 1.0])
def test_coverage_is_the_share_of_actions_that_occur(coverage: float) -> None:
    world = bradley_terry_world("w", "1", 4, 9)
    covered = covered_actions(world, "w", "1", coverage)
    pairs = sample_pairs(world, covered, 20, np.random.default_rng(0))
    for prompt in world.actions:
        occurring = {text for p in pairs if p.prompt == prompt for text in (p.chosen, p.rejected)}
        assert occurring == set(covered[prompt])
        assert len(occurring) == max(2, round(coverage * 9))
    wider = covered_actions(world, "w", "1", 1.0)
    assert all(set(covered[prompt]) <= set(wider[prompt]) for prompt in covered)


def test_too_few_pairs_for_the_coverage() -> None:
    world = bradley_terry_world("w", "1", 4, 9)
    with pytest.raises(DataError, match="19 pairs cannot contain every action; want at least 20"):
        sample_pairs(world, world.actions, 19, np.random.default_rng(0))


def test_labels_follow_the_true_probability_of_the_orientation_drawn() -> None:
    world = bradley_terry_world("w", "1", 2, 3)
    pairs = sample_pairs(world, world.actions, 6000, np.random.default_rng(0))
    assert Counter(p.prompt for p in pairs) == {"x0": 3000, "x1": 3000}
    for p in pairs:
        difference = world.reward[p.prompt][p.chosen] - world.reward[p.prompt][p.rejected]
        assert p.p_chosen == pytest.approx(1 / (1 + np.exp(-difference)), abs=1e-12)
    assert any(p.p_chosen is not None and p.p_chosen < 0.5 for p in pairs)
    for prompt, texts in world.actions.items():
        for i, a in enumerate(texts):
            for b in texts[:i]:
                wins = [
                    p.chosen == a for p in pairs if p.prompt == prompt and {p.chosen, p.rejected} == {a, b}
                ]
                assert len(wins) > 800, "every pair of actions is drawn equally often"
                assert np.mean(wins) == pytest.approx(preference(world, prompt, a, b), abs=0.05)


def frequencies(world: World, pairs: Sequence[Pair]) -> dict[tuple[str, str, str], float]:
    """How often a was chosen over b, for every prompt and pair of actions."""
    out = {}
    for prompt, texts in world.actions.items():
        for i, a in enumerate(texts):
            for b in texts[:i]:
                these = [p for p in pairs if p.prompt == prompt and {p.chosen, p.rejected} == {a, b}]
                out[prompt, a, b] = float(np.mean([p.chosen == a for p in these]))
    return out


def test_who_labels_changes_labels_only() -> None:
    world = bradley_terry_world("w", "1", 2, 3)
    other = Annotators(temperature=4.0, length_bias=1.0, length=nuisance(world, "w", "1", "length"))
    clean, biased = (
        sample_pairs(world, world.actions, 400, np.random.default_rng(0), annotators=a) for a in (None, other)
    )
    assert [{p.chosen, p.rejected} for p in clean] == [{p.chosen, p.rejected} for p in biased]
    assert clean != biased
    for p in biased:  # the truth is told of every row, whoever labelled it
        assert p.p_chosen == pytest.approx(preference(world, p.prompt, p.chosen, p.rejected), abs=1e-12)


def test_biased_labels_follow_their_own_law() -> None:
    world = bradley_terry_world("w", "1", 2, 3)
    length = nuisance(world, "w", "1", "length")
    labels = Annotators(temperature=3.0, length_bias=0.7, length=length)
    drawn = frequencies(
        world, sample_pairs(world, world.actions, 6000, np.random.default_rng(0), annotators=labels)
    )
    for (prompt, a, b), share in drawn.items():
        reward = world.reward[prompt]
        logit = (reward[a] - reward[b]) / 3 + 0.7 * (length[prompt][a] - length[prompt][b])
        assert share == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.06)


def test_several_annotators_are_a_mixture_of_tastes() -> None:
    world = bradley_terry_world("w", "1", 2, 3)
    tastes = tuple(
        {x: {y: 5 * v for y, v in of.items()} for x, of in nuisance(world, "w", "1", k).items()}
        for k in range(2)
    )
    pairs = sample_pairs(
        world, world.actions, 8000, np.random.default_rng(0), annotators=Annotators(offsets=tastes)
    )
    assert {p.source for p in pairs} == {"annotator 0", "annotator 1"}
    for k, taste in enumerate(tastes):
        drawn = frequencies(world, [p for p in pairs if p.source == f"annotator {k}"])
        for (prompt, a, b), share in drawn.items():
            reward = {y: world.reward[prompt][y] + taste[prompt][y] for y in world.actions[prompt]}
            assert share == pytest.approx(1 / (1 + np.exp(reward[b] - reward[a])), abs=0.06)
