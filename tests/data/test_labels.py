"""What a row says of the preference, and the rows of the loss that it becomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpo_bench import Example, Pair, Single
from xpo_bench.data.formats import to_singles
from xpo_bench.data.labels import carried, decided, flip_labels, hardened, sampled, softened, tie_part, units

CERTAIN = Pair("x", "a", "b")
SURE = Pair("x", "a", "b", p_chosen=1.0)
VOTED = Pair("x", "a", "c", p_chosen=0.75)
TIED = Pair("x", "b", "c", p_chosen=0.5)
SPLIT = Pair("x", "a", "d", p_chosen=0.5, p_tie=0.0)
HALF_TIED = Pair("y", "a", "d", p_chosen=0.75, p_tie=0.25)
ROWS = [CERTAIN, SURE, VOTED, TIED, SPLIT, HALF_TIED]


def told(rows: list[Example]) -> list[tuple[str, str, float, float]]:
    return [(e.chosen, e.rejected, e.share, tie_part(e)) for e in rows if isinstance(e, Pair)]


# --------------------------------------------------------------------------- ties


def test_a_row_at_one_half_is_a_tie_unless_its_votes_say_that_it_is_split() -> None:
    assert [tie_part(e) for e in ROWS] == [0, 0, 0, 1, 0, 0.25]
    assert decided(ROWS) == [0, 1, 2, 5]
    assert decided(ROWS, ties=True) == [0, 1, 2, 3, 5]


def test_hard_labels_of_algorithms_with_ties_are_the_likeliest_of_three() -> None:
    mostly_tied = Pair("x", "a", "b", p_chosen=0.6, p_tie=0.5)
    assert decided([mostly_tied], ties=True) == [0]
    assert told([hardened(e) for e in (VOTED, TIED, HALF_TIED, mostly_tied)]) == [
        ("a", "c", 1, 0),
        ("b", "c", 1, 1),
        ("a", "d", 1, 0),
        ("a", "b", 1, 1),
    ]


# --------------------------------------------------------------------------- soft


def test_both_orientations_have_the_probability_of_theirs() -> None:
    assert told(softened(ROWS)) == [
        ("a", "b", 1, 0),
        ("a", "b", 1, 0),
        ("a", "c", 0.75, 0),
        ("c", "a", 0.25, 0),
        ("b", "c", 0.5, 1),
        ("c", "b", 0.5, 1),
        ("a", "d", 0.5, 0),
        ("d", "a", 0.5, 0),
        ("a", "d", 0.75, 0.25),
        ("d", "a", 0.25, 0.25),
    ]
    assert softened([CERTAIN, SURE]) == [CERTAIN, SURE]  # the rows themselves, as hard labels have them


def test_a_tie_is_an_outcome_of_its_own_where_the_algorithm_models_it() -> None:
    assert told(softened([TIED, SPLIT, HALF_TIED], ties=True)) == [
        ("b", "c", 1, 1),
        ("a", "d", 0.5, 0),
        ("d", "a", 0.5, 0),
        ("a", "d", 0.625, 0),
        ("d", "a", 0.125, 0),
        ("a", "d", 0.25, 1),
    ]


pairs = st.builds(
    lambda prompt, sides, p, t: Pair(
        prompt, sides[0], sides[1], p_chosen=p, p_tie=None if t is None else t * 2 * min(p, 1 - p)
    ),
    st.sampled_from("xyz"),
    st.permutations("abc").map(lambda order: order[:2]),
    st.integers(50, 100).map(lambda percent: percent / 100),
    st.none() | st.integers(0, 10).map(lambda tenths: tenths / 10),
)


@given(st.lists(pairs, min_size=1, max_size=12), st.booleans())
def test_shares_of_a_row_sum_to_one_and_its_rows_stay_together(rows: list[Pair], ties: bool) -> None:
    made = [softened([e], ties) for e in rows]
    assert all(sum(e.share for e in of) == pytest.approx(1, abs=1e-12) for of in made)
    assert all(e.share > 0 for of in made for e in of)
    flat = [e for of in made for e in of]
    assert [len(part) for part in units(flat)] == [len(of) for of in made]
    singles = to_singles(flat)
    assert [len(part) for part in units(singles, 2)] == [2 * len(of) for of in made]


def test_unpaired_examples_have_the_share_of_their_pair_and_the_label_of_their_orientation() -> None:
    singles = to_singles(softened([VOTED]))
    assert [(e.completion, e.desirable, e.share) for e in singles] == [
        ("a", True, 0.75),
        ("c", False, 0.75),
        ("c", True, 0.25),
        ("a", False, 0.25),
    ]


def test_noise_turns_a_soft_label_round() -> None:
    (flipped,) = flip_labels([HALF_TIED], 1.0, np.random.default_rng(0))
    assert told(softened([flipped])) == [("d", "a", 0.25, 0.25), ("a", "d", 0.75, 0.25)]


# --------------------------------------------------------------------------- sampled


def test_a_label_is_drawn_by_its_probability_and_ties_as_such_where_they_are_modelled() -> None:
    n = 20_000
    rows: list[Example] = [HALF_TIED] * n

    def fractions(ties: bool) -> tuple[float, float, float]:
        drawn = told(sampled(rows, np.random.default_rng(0), ties))
        tied = sum(row[3] == 1 for row in drawn)
        won = sum(row[0] == "a" and row[3] != 1 for row in drawn)
        return won / n, tied / n, (n - won - tied) / n

    # 4.5 standard errors of a fraction at ½
    assert fractions(False) == pytest.approx((0.75, 0, 0.25), abs=0.016)
    assert fractions(True) == pytest.approx((0.625, 0.25, 0.125), abs=0.016)


def test_the_draw_of_a_row_does_not_depend_on_the_others() -> None:
    one = sampled([VOTED, CERTAIN, TIED], np.random.default_rng(3))
    two = sampled([TIED, CERTAIN, TIED], np.random.default_rng(3))
    assert one[1:] == two[1:]
    assert one[1] is CERTAIN


# --------------------------------------------------------------------------- what algorithms make of rows


def test_shares_survive_an_algorithm_that_builds_new_pairs() -> None:
    rows = softened([VOTED, CERTAIN])
    rebuilt = [Pair(e.prompt, e.chosen, e.rejected) for e in rows if isinstance(e, Pair)]
    assert [e.share for e in carried(rows, rebuilt)] == [0.75, 0.25, 1]
    others = [Pair("x", "a", "b")] * 3  # sampled anew: rows of their own
    assert [e.share for e in carried(rows, others)] == [1, 1, 1]
    assert carried(rows, rebuilt[:2]) == rebuilt[:2]
    assert carried([CERTAIN], [Single("x", "a", True)]) == [Single("x", "a", True)]
