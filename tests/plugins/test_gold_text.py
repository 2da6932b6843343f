"""gold_text: the reward, the labels and the split, and what a run of it reports."""

from __future__ import annotations

import numpy as np
import pytest

from xpo_bench import ModelSpec, Pair
from xpo_bench_plugins.tasks.gold_text import PLEASANT, UNPLEASANT, GoldText, gold, reward, stories

MODEL = ModelSpec(name="tiny")


def test_reward_counts_each_word_once_and_takes_off_for_repetition() -> None:
    assert reward("They found a happy dog.") == 1
    assert reward("A sad dog, a happy cat.") == pytest.approx(0 - 4 / 6)  # the second "a"
    assert reward("Happy!") == 1
    assert reward("happy happy happy happy") == pytest.approx(1 - 4 * 3 / 4)
    assert reward("...") == 0


def test_a_word_said_long_ago_is_no_repetition() -> None:
    assert reward("dog one two three four five six seven eight dog") == 0
    assert reward("dog one two three four five six seven dog") < 0


def test_no_word_is_both_pleasant_and_unpleasant() -> None:
    assert not PLEASANT & UNPLEASANT


def test_labels_follow_bradley_and_terry() -> None:
    pairs = [row for row in GoldText(temperature=2.0).data(0, MODEL).train if isinstance(row, Pair)]
    margins = np.array([reward(p.chosen) - reward(p.rejected) for p in pairs])
    claimed = np.array([p.p_chosen for p in pairs], dtype=float)
    np.testing.assert_allclose(claimed, 1 / (1 + np.exp(-margins / 2)), atol=1e-12)
    # the labels are draws: how often the better text is chosen is what its probability says, within four
    # standard errors
    better = np.maximum(claimed, 1 - claimed)
    won = (claimed > 0.5)[claimed != 0.5]
    expected = better[claimed != 0.5]
    assert abs(won.mean() - expected.mean()) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(won)


def test_heldout_prompts_are_whole_and_the_same_at_every_seed() -> None:
    first, second = (GoldText().data(seed, MODEL) for seed in (0, 1))
    train, held = ({row.prompt for row in rows} for rows in (first.train, first.heldout))
    assert not train & held
    assert len(held) == 64
    assert len(train | held) == len(stories())
    assert {row.prompt for row in second.heldout} == held
    assert first.train != second.train
    assert {c.prompt for c in first.corpus} == train
    assert {c.prompt for c in second.corpus} == train


def test_every_completion_is_used_once_at_every_seed() -> None:
    used = [
        text
        for row in GoldText().data(3, MODEL).train
        if isinstance(row, Pair)
        for text in (row.chosen, row.rejected)
    ]
    corpus = [item.text for item in GoldText().data(3, MODEL).corpus]
    assert sorted(used) == sorted(corpus)


def test_gold_judges_any_completion() -> None:
    completion = GoldText().data(0, MODEL).corpus[0]
    assert gold(completion) == reward(completion.text)
