"""Pairs drawn together are those drawn one by one: same numbers, same state of the generator, same prints."""

from __future__ import annotations

import json
from hashlib import blake2b

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single, Text, World
from xpo_bench.data import draws
from xpo_bench.data.dataset import fingerprint
from xpo_bench.data.synthetic import (
    Annotators,
    bradley_terry_world,
    covered_actions,
    nuisance,
    preference,
    sample_pairs,
)

OPTIONS = {
    "plain": (8, 6, 1.0, Annotators()),
    "two actions": (3, 2, 1.0, Annotators()),
    "odd": (5, 33, 1.0, Annotators()),
    "covered": (4, 9, 0.5, Annotators(temperature=3.0)),
}


def in_turn(
    world: World,
    actions: dict[str, tuple[str, ...]],
    pairs: int,
    rng: np.random.Generator,
    cover: bool,
    who: Annotators,
) -> tuple[Pair, ...]:
    """What `sample_pairs` says of itself, a row at a time."""
    prompts = list(actions)
    decks: dict[str, list[tuple[int, int]]] = {}
    for prompt in prompts:
        order = rng.permutation(len(actions[prompt])).tolist() if cover else []
        order += order[:1] if len(order) % 2 else []
        decks[prompt] = list(zip(order[::2], order[1::2], strict=True))
    turns = rng.spawn(1)[0]
    out = []
    for row in range(pairs):
        prompt = prompts[row % len(prompts)]
        texts, deck = actions[prompt], decks[prompt]
        i, j = deck.pop() if deck else rng.choice(len(texts), size=2, replace=False).tolist()
        a, b = texts[i], texts[j]
        k = int(turns.integers(len(who.offsets))) if who.offsets else None
        source = None if k is None else f"annotator {k}"
        p = preference(world, prompt, a, b)
        first = rng.random() < who.probability(world, prompt, a, b, k)
        out.append(Pair(prompt, a, b, p, source) if first else Pair(prompt, b, a, 1 - p, source))
    return tuple(out)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [2, 3, 9, 1000])
def test_together_and_one_by_one_draw_the_same(seed: int, most: int) -> None:
    chance = np.random.default_rng([seed, most])
    sizes = chance.integers(2, most + 1, chance.integers(1, 6)).tolist()
    decks = [[(0, 1), (1, 0), (0, 1)][: chance.integers(0, 4)] for _ in sizes]
    rows = int(chance.integers(0, 80))
    one, other = (np.random.default_rng(seed) for _ in range(2))
    for rng in (one, other):  # an odd number of 32-bit words: half of a reading is kept for the next draw
        rng.integers(7, size=seed % 3, dtype=np.int32)
    slow = draws._one_by_one(one, sizes, decks, rows)
    fast = draws._together(other.bit_generator, np.asarray(sizes), decks, rows)  # type: ignore[arg-type]
    assert fast is not None
    for name in ("first", "second", "uniform"):
        assert getattr(slow, name).tobytes() == getattr(fast, name).tobytes(), name
    assert one.bit_generator.state == other.bit_generator.state


def test_a_word_that_numpy_throws_away_is_thrown_away() -> None:
    size = 9999
    raw = np.random.PCG64(0).random_raw(4_000_000)
    least = (1 << 32) % (size - 1)
    low = (raw & draws.LOW) * np.uint64(size - 1) & draws.LOW
    at = int(np.flatnonzero(low < least)[0])
    rngs = [np.random.Generator(np.random.PCG64(0).advance(at)) for _ in range(2)]
    assert draws._together(rngs[0].bit_generator, np.array([size]), [[]], 5) is None  # type: ignore[arg-type]
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
    fast, slow = draws.draw(rngs[0], [size], [[]], 5), draws._one_by_one(rngs[1], [size], [[]], 5)
    assert (fast.first.tolist(), fast.uniform.tolist()) == (slow.first.tolist(), slow.uniform.tolist())


def test_other_generators_draw_too() -> None:
    one, other = (np.random.Generator(np.random.Philox(1)) for _ in range(2))
    found = draws.draw(one, [4], [[(2, 3)]], 3)
    assert (found.first[0], found.second[0]) == (2, 3)
    expected = [other.random(), *((other.choice(4, size=2, replace=False), other.random())[1] for _ in "ab")]
    assert found.uniform.tolist() == expected


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("cover", [True, False])
def test_pairs_are_those_drawn_in_turn(name: str, cover: bool) -> None:
    prompts, size, coverage, who = OPTIONS[name]
    world = bradley_terry_world("w", "1", prompts, size)
    actions = covered_actions(world, "w", "1", coverage)
    for seed in range(4):
        one, other = (np.random.default_rng(seed) for _ in range(2))
        found = sample_pairs(world, actions, 200, one, cover=cover, annotators=who)
        assert repr(found) == repr(in_turn(world, actions, 200, other, cover, who))
        assert one.bit_generator.state == other.bit_generator.state


def test_annotators_take_turns_as_before() -> None:
    world = bradley_terry_world("w", "1", 4, 5)
    offsets = tuple(nuisance(world, "w", "1", k) for k in range(3))
    who = Annotators(length_bias=0.7, length=nuisance(world, "w", "1", "length"), offsets=offsets)
    for seed in range(4):
        one, other = (np.random.default_rng(seed) for _ in range(2))
        found = sample_pairs(world, world.actions, 100, one, annotators=who)
        assert repr(found) == repr(in_turn(world, dict(world.actions), 100, other, True, who))
    assert {pair.source for pair in found} == {"annotator 0", "annotator 1", "annotator 2"}


def test_labels_that_are_remembered_are_those_of_the_world_and_of_who_labels() -> None:
    world = bradley_terry_world("w", "1", 2, 3)
    colder = World(
        actions=world.actions, reward={x: dict.fromkeys(of, 0.0) for x, of in world.reward.items()}
    )
    for truth, who in ((world, Annotators()), (colder, Annotators()), (world, Annotators(temperature=9.0))):
        found = sample_pairs(truth, truth.actions, 50, np.random.default_rng(0), annotators=who)
        expected = in_turn(truth, dict(truth.actions), 50, np.random.default_rng(0), True, who)
        assert repr(found) == repr(expected)


def test_fingerprints_are_those_of_every_row_encoded() -> None:
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    odd = Pair('p "q" é\u2028\ud83d\n', "\\", "\x00\x7f", 0.1 + 0.2, "s", "who")
    pairs = (odd, Pair("x", "a", "b"), Pair("x", "a", "b", 1.0), Pair("x", "a", "b", 1), odd)
    told = Pair(Text("x", rendered=True), Text("a", ids=[1, 2]), "b")
    single = Single("x", "a", True, None, {"z": 1.0, "b": 2})
    for train, held in (((*pairs, told), pairs), ((single,), (single,)), ((*pairs,), ())):
        for layout in ("", "trl"):
            lines = [encode(["pairs"])]
            for split, examples in (("train", train), ("heldout", held)):
                for e in examples:
                    if isinstance(e, Pair):
                        row: list[object] = [
                            split,
                            "pair",
                            e.prompt,
                            e.chosen,
                            e.rejected,
                            e.p_chosen,
                            e.source,
                        ]
                        texts: tuple[str, ...] = (e.prompt, e.chosen, e.rejected)
                    else:
                        row = [split, "single", e.prompt, e.completion, e.desirable, e.source, dict(e.values)]
                        texts = (e.prompt, e.completion)
                    lines.append(encode(row))
                    lines += [encode(["person", e.person])] if layout and e.person is not None else []
                    tokens = [text.tokens for text in texts if isinstance(text, Text)]
                    lines += [encode(["tokens", tokens])] if tokens else []
            expected = blake2b("".join(f"{line}\n" for line in lines).encode(), digest_size=16).hexdigest()
            for _ in range(2):  # the second time from what is remembered
                assert fingerprint(Dataset(train=train, heldout=held, layout=layout)) == expected
