"""Statistics of preference rows: against brute force on random sets, and exact values on written ones."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest

from xpo_bench.contract.examples import Example, Pair, Single
from xpo_bench.data import statistics


def pair(prompt: str, chosen: str, rejected: str, p: float | None = None) -> Pair:
    return Pair(prompt, chosen, rejected, p)


def random_pairs(seed: int, rows: int = 120) -> list[Pair]:
    """Pairs of seven completions of two prompts: repetitions, contradictions, ties and cycles among them."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(rows):
        a, b = rng.choice(7, size=2, replace=False)
        p = (None, 0.5, 0.75, 1.0)[rng.choice(4)]
        out.append(pair(f"x{rng.integers(2)}", f"y{a}", f"y{b}", p))
    return out


def test_written_set_has_the_values_that_a_reader_counts() -> None:
    rows = [
        pair("x", "a", "b"),
        pair("x", "a", "b", 1.0),
        pair("x", "b", "a", 0.6),
        pair("x", "b", "c"),
        pair("x", "c", "d"),
        pair("x", "d", "b"),
        pair("z", "a", "q", 0.5),
    ]
    assert statistics.repeated(rows) == 1
    assert statistics.shared_completions(rows) == (1, 4)
    assert statistics.contradictions(rows) == (4, 1, 3)
    assert statistics.unanimity(rows) == (3, 1)
    assert statistics.intransitive(rows) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_triples_are_those_of_brute_force(seed: int) -> None:
    rows = random_pairs(seed, rows=40 + 20 * seed)
    won = Counter((e.prompt, e.chosen, e.rejected) for e in rows if e.p_chosen != 0.5)

    def beats(x: str, a: str, b: str) -> bool:
        return won[x, a, b] > won[x, b, a]

    compared = cyclic = 0
    for x in ("x0", "x1"):
        for three in combinations([f"y{i}" for i in range(7)], 3):
            decided = all(beats(x, a, b) or beats(x, b, a) for a, b in combinations(three, 2))
            compared += decided
            cyclic += any(
                beats(x, a, b) and beats(x, b, c) and beats(x, c, a) for a, b, c in permutations(three)
            )
    assert statistics.intransitive(rows) == (compared, cyclic)
    assert seed == 0 or 0 < cyclic < compared


def test_a_majority_decides_a_comparison_and_an_equal_count_does_not() -> None:
    cycle = [pair("x", "a", "b"), pair("x", "b", "c"), pair("x", "c", "a")]
    assert statistics.intransitive([*cycle, pair("x", "a", "c"), pair("x", "a", "c")]) == (1, 0)
    assert statistics.intransitive([*cycle, pair("x", "a", "c")]) == (0, 0)
    other = [pair("x", "a", "b"), pair("x", "b", "c"), pair("z", "c", "a")]
    assert statistics.intransitive(other) == (0, 0)


def test_one_completion_that_is_compared_with_many_costs_no_square() -> None:
    rows = [pair("x", "hub", f"y{i}") for i in range(20_000)]
    assert statistics.intransitive(rows) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_contradictions_are_those_of_brute_force(seed: int) -> None:
    rows = random_pairs(seed)
    strict = [e for e in rows if e.p_chosen != 0.5]
    both = [
        e
        for e in strict
        if pair(e.prompt, e.rejected, e.chosen) in [pair(f.prompt, f.chosen, f.rejected) for f in strict]
    ]
    sides = {(e.prompt, frozenset((e.chosen, e.rejected))) for e in strict}
    found = statistics.contradictions(rows)
    assert found == (
        len(sides),
        len({(e.prompt, frozenset((e.chosen, e.rejected))) for e in both}),
        len(both),
    )
    assert found.contradictory > 0


def test_labels_of_one_completion_contradict_each_other() -> None:
    rows: list[Example] = [
        Single("x", "a", True),
        Single("x", "a", False),
        Single("x", "a", True),
        Single("z", "a", True),
    ]
    assert statistics.contradictions(rows) == (2, 1, 3)
    assert statistics.repeated(rows) == 1
    assert statistics.shared_completions(rows) == (1, 4)


def test_both_sides_of_a_split() -> None:
    train = [pair("x", "a", "b"), pair("y", "c", "d")]
    heldout = [pair("x", "e", "f"), pair("x", "c", "g"), pair("z", "h", "i")]
    assert statistics.overlap(train, heldout) == (1, 2, 1, 1)
    assert statistics.overlap(train, []) == (0, 0, 0, 0)


def test_unicode_forms_and_spaces_are_the_same_text() -> None:
    rows = [pair("x", "caf\u00e9", "cafe\u0301"), pair("x", " a  b\n", "a b"), pair("x", "ab", "a b")]
    assert statistics.same_but_for_spaces(rows) == 2


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def test_edit_distances_are_normalised_levenshtein() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc"), size=rng.integers(1, 12))) for _ in range(60)]
    sides = list(zip(texts[::2], texts[1::2], strict=True))
    right = [levenshtein(a, b) / max(len(a), len(b)) for a, b in sides]
    assert statistics.edit_distances(sides) == pytest.approx(right, abs=1e-12)
    ids = [([ord(c) * 1000 for c in a], [ord(c) * 1000 for c in b]) for a, b in sides]
    assert statistics.edit_distances(ids) == pytest.approx(right, abs=1e-12)


def test_longer_wins_counts_equal_lengths_half() -> None:
    assert statistics.longer_wins([3, 1, 2], [1, 3, 2]).tolist() == [1.0, 0.0, 0.5]
