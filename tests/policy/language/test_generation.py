"""Generation behind the tools: sampled completions, reward heads, and algorithms that need both."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import present

import xpo_bench
from xpo_bench import Completion, ModelSpec, Pair, Single
from xpo_bench.contract.examples import Text
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenizers import ByteTokenizer
from xpo_bench.policy.reward_model import accuracy, fit_head

SPEC = ModelSpec(
    name="tiny",
    tokenizer="ids",
    vocab_size=8,
    hidden_size=16,
    intermediate_size=32,
    layers=1,
    context=16,
    eos=False,
)


@pytest.fixture(scope="module")
def policy() -> CausalLM:
    return CausalLM.load(SPEC, init_seed=3, dtype="float32", device="cpu")


def test_samples_come_grouped_by_prompt_and_from_the_given_stream(policy: CausalLM) -> None:
    def draw(seed: int) -> list[list[Completion]]:
        return policy.generate(0, ["1 2", "3"], 5, np.random.default_rng(seed), max_new_tokens=3)

    first = draw(0)
    assert [[c.prompt for c in group] for group in first] == [["1 2"] * 5, ["3"] * 5]
    assert all(len(c.text.split()) == 3 for group in first for c in group)
    assert draw(0) == first != draw(1)


def test_features_are_those_of_the_snapshot_and_one_row_per_completion(policy: CausalLM) -> None:
    items = [Completion("1 2", "3 4"), Completion("1 2", "5"), Completion("1 2", "3 4")]
    initial = policy.snapshot()
    before = policy.describe_completions(items, initial)
    assert before.shape == (3, 2 * SPEC.hidden_size)
    assert (before[0] == before[2]).all()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1)
    try:
        assert np.abs(policy.describe_completions(items, initial) - before).max() < 1e-6
    finally:
        policy.restore(initial)


def test_reward_head_learns_what_separates_the_pairs(policy: CausalLM) -> None:
    rng = np.random.default_rng(0)

    def pair() -> Pair:  # completions that end in token 7 are preferred
        prompt, good, bad = (" ".join(map(str, rng.integers(0, 7, n))) for n in (2, 2, 2))
        return Pair(prompt, f"{good} 7 7", f"{bad} 0 0")

    train, heldout = [pair() for _ in range(40)], [pair() for _ in range(40)]
    reward = fit_head(lambda items: policy.describe_completions(items, policy.snapshot()), train, 0.01)
    assert accuracy(reward, train) == 1
    assert accuracy(reward, heldout) > 0.9
    assert accuracy(lambda items: [0.0] * len(items), heldout) == 0.5


def test_rso_and_ppo_run_on_a_language_model_and_raise_the_reward(tmp_path: Path) -> None:
    result = xpo_bench.run(
        algos="rso,ppo", tasks="overfit_pair", seeds=1, steps=60, out=tmp_path, set={"task.kl_samples": 64}
    )
    assert [c["status"] for c in result.cells] == ["ok", "ok"]
    for cell in result.cells:
        assert cell["notes"]["reward_accuracy_train"] == 1
        assert present(cell["metrics"]["kl"]) > 0.1  # the policy moved towards what the fitted reward likes
    assert 0 < present(result.cells[0]["metrics"]["acceptance_rate"]) < 1


BYTES = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=1, context=64)


@pytest.fixture(scope="module")
def wild() -> CausalLM:
    """A byte model with samples that are mostly invalid UTF-8: their text does not give their ids back."""
    return CausalLM.load(BYTES, init_seed=1, dtype="float64", device="cpu")


def test_what_was_drawn_is_what_is_scored(wild: CausalLM) -> None:
    prompts, rng = ["ab", "c"], np.random.default_rng(0)
    drawn = [c for group in wild.generate(0, prompts, 40, rng, max_new_tokens=12) for c in group]
    generator = torch.Generator().manual_seed(int(np.random.default_rng(0).integers(2**62)))
    sampled = wild.sample(prompts, 40, max_new_tokens=12, generator=generator)
    rows = [wild.encode([c]).rows[0] for c in drawn]
    assert [row.ids[row.start :] for row in rows] == list(sampled.ids)
    assert sum(row.ids[-1] == wild.tokenizer.eos for row in rows) == int(sampled.finished.sum()) < len(rows)
    scores = wild.score_all(wild.encode(drawn))
    assert torch.allclose(scores.sum, sampled.scores.sum, rtol=0, atol=1e-9)
    assert any(tuple(c.text.encode()) != row.ids[row.start :] for c, row in zip(drawn, rows, strict=True))


def test_pairs_and_singles_of_samples_keep_their_ids(wild: CausalLM) -> None:
    ((first, second),) = wild.generate(0, ["ab"], 2, np.random.default_rng(5), max_new_tokens=9)
    pair = Pair("ab", first.text, second.text)
    single = Single(first.prompt, pair.chosen, True)
    for found in (Completion("ab", pair.chosen), Completion(single.prompt, single.completion)):
        assert wild.encode([found]).rows == wild.encode([first]).rows
    donated = wild.encode([Completion("another prompt", first.text)]).rows[0]  # KTO's mismatched rows
    assert donated.ids[donated.start :] == wild.encode([first]).rows[0].ids[3:]


def test_texts_that_are_equal_and_drawn_otherwise_are_two_completions() -> None:
    a, b = Completion("x", Text("y", ids=(1, 2))), Completion("x", Text("y", ids=(3,)))
    assert a != b
    assert a.text == b.text == "y"
    assert len({a, b, Completion("x", "y")}) == 3
    assert pickle.loads(pickle.dumps(a)) == a


def test_samples_end_at_every_id_that_ends_a_text(wild: CausalLM) -> None:
    tokenizer = wild.tokenizer
    wild.reader.tokenizer = ManyEnds()
    try:
        drawn = wild.sample(["ab"], 60, max_new_tokens=12, generator=torch.Generator().manual_seed(0))
    finally:
        wild.reader.tokenizer = tokenizer
    ends = [ids[-1] for ids in drawn.ids]
    assert all(not ManyEnds.stops.intersection(ids[:-1]) for ids in drawn.ids)
    assert drawn.finished.tolist() == [end in ManyEnds.stops for end in ends]
    assert len(set(ends) & ManyEnds.stops) > 5
    assert all(
        len(text.encode(errors="replace")) >= len(ids) - 1
        for text, ids in zip(drawn.texts, drawn.ids, strict=True)
    )


class ManyEnds(ByteTokenizer):
    stops = frozenset(range(0, 259, 6))
