"""Pairs at rest, counted one by one: converged, saturated, and what is left still moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from curves import Pairs, curve_of

from xpo_bench.metrics.curve import Curve
from xpo_bench.metrics.pair_drift import PairDrift
from xpo_bench.train.budget import evaluation_steps


def fractions(curve: Curve) -> tuple[list[float], list[float]]:
    got = curve.final()
    return got["converged"].tolist(), got["saturated"].tolist()


def at_rest(t: int) -> float:
    return -3.0 * (t > 0)


def test_pairs_are_counted_one_by_one(pairs: Pairs) -> None:
    """Three at rest and one that falls: so does the mean, and the word for the run tells of no other."""
    curve = curve_of(pairs, [lambda t: [at_rest(t), at_rest(t), -0.02 * t, 2 * at_rest(t)]], saturated=False)
    assert fractions(curve) == ([0.75], [0.0])
    assert curve.notes(0)["rejected_state"] == "falling"
    # and a mean at rest hides one that falls by .16, more than .1, among ten
    curve = curve_of(pairs, [lambda t: [-0.004 * t, *[at_rest(t)] * 9]], saturated=False)
    assert curve.notes(0)["rejected_state"] == "converged"
    assert fractions(curve) == ([0.9], [0.0])


def test_the_limit_is_in_units_of_the_regulariser(pairs: Pairs) -> None:
    """A change of .05 is rest at β = .1, and none at β = 10."""

    def late(t: int) -> float:
        return at_rest(t) - 0.05 * (t > 180)

    assert fractions(curve_of(pairs, [late, late], scale=np.array([10.0, 0.1]))) == ([1, 0], [0, 0])


def test_at_rest_in_a_saturated_run_is_saturated(pairs: Pairs) -> None:
    """Far below the threshold of collapse or not: `collapsed` counts the first, `converged` neither."""
    curve = curve_of(pairs, [lambda t: [-40.0 * (t > 0), at_rest(t)]], saturated=True)
    assert fractions(curve) == ([0.0], [1.0])
    assert curve.final()["collapsed"][0] == 0.5
    assert curve.notes(0)["rejected_state"] == "saturated"
    # momentum carries a collapsed pair on by .2, and the mean of both by no more than .1
    carried = curve_of(pairs, [lambda t: [-40.0 * (t > 0) - 0.15 * (t > 180), at_rest(t)]], saturated=True)
    assert fractions(carried) == ([0.0], [1.0])
    moving = curve_of(pairs, [lambda t: [-40.0 * (t > 0), -0.5 * t]], saturated=True)
    assert fractions(moving) == ([0.0], [0.5])


def test_what_has_hardly_moved_has_not_converged(pairs: Pairs) -> None:
    """A learning rate far too small has no drift either; nor does a slow fall have rest in it."""
    slow = curve_of(pairs, [lambda t: 0.0, lambda t: -1e-11 * t, lambda t: -0.002 * t])
    assert fractions(slow) == ([0.0] * 3, [0.0] * 3)
    assert all("rejected_state" not in slow.notes(r) for r in range(3))


def test_rows_that_do_not_count_are_not_counted(pairs: Pairs) -> None:
    """Padding, and rows without a chosen side."""
    curve = Curve(200)
    for t in evaluation_steps(200):
        facts: dict[str, Any] = {
            "valid": np.array([[True, True, True, False]]),
            "p_chosen": np.array([[np.nan, 0.9, 0.5, np.nan]]),
        }
        rejected = np.array([[at_rest(t), -1.0 * t, at_rest(t), at_rest(t)]])
        curve.add(pairs(np.zeros((1, 4)), rejected, t, **facts))
    assert fractions(curve) == ([0.5], [0.0])


@pytest.mark.parametrize("steps", [1, 5, 10, 40])
def test_a_short_run_has_neither(pairs: Pairs, steps: int) -> None:
    got = curve_of(pairs, [at_rest], steps, saturated=True).final()
    assert np.isnan([got["converged"][0], got["saturated"][0], got["rejected_drift"][0]]).all()


def test_a_run_that_diverged_is_judged_where_it_ended(pairs: Pairs) -> None:
    """The first run ends at step 100, where it had stood still since step 60, and jumped before that."""
    curve = Curve(200)
    for t in evaluation_steps(200):
        jumps = np.array([[-3.0 * (t > 60)], [-3.0 * (t > 160)]])
        curve.add(pairs(np.zeros((2, 1)), jumps, t), np.array([t <= 100, True]))
    assert list(curve.final()["rejected_drift"]) == [0, -3]
    assert fractions(curve) == ([1.0, 0.0], [0.0, 0.0])


def test_a_second_evaluation_takes_the_place_of_the_first(pairs: Pairs) -> None:
    """Also where the first was finite and the second is not: the run then ended one evaluation before."""
    curve = Curve(100)
    for t in (0, 40, 80):
        curve.add(pairs(np.zeros((2, 1)), np.full((2, 1), at_rest(t)), t))
    curve.add(pairs(np.zeros((2, 1)), [[-9.0], [-9.0]], 100))
    curve.add(pairs(np.zeros((2, 1)), [[-3.0], [np.nan]], 100))
    assert list(curve.final()["rejected_drift"]) == [0, 0]
    assert fractions(curve) == ([1.0, 1.0], [0.0, 0.0])


def test_few_log_ratios_are_kept(pairs: Pairs) -> None:
    """Those of the last fifth and the one before it, however many evaluations there were."""
    drift = PairDrift()
    for t in range(1001):
        drift.add(pairs(np.zeros((1, 3)), np.full((1, 3), -0.01 * t), t), np.array([True]))
    assert len(drift._kept) == 201
    few = PairDrift()
    for t in evaluation_steps(100_000):
        few.add(pairs(np.zeros((1, 3)), np.full((1, 3), -0.01 * t), t), np.array([True]))
        assert len(few._kept) <= 6
    assert few.ends is not None
    assert few.ends.drift == pytest.approx(-200)


def test_they_agree_with_the_word_for_the_run(pairs: Pairs) -> None:
    """One pair: each is 1 exactly in the state of its name. More: what can be said of a mean holds.

    And both are there exactly where rejected_drift is, and no pair is both.
    """
    rng = np.random.default_rng(0)
    seen = set()
    for trial in range(400):
        steps, rows = int(rng.choice([5, 20, 60, 200])), int(rng.integers(1, 5))
        speed = rng.normal(0, 0.02, (4, rows)) * rng.choice([0, 0.1, 1, 10], (4, rows))
        floor, jump = rng.uniform(-20, 0, (4, rows)), rng.random((4, rows)) * steps
        if trial % 4 == 0:  # runs that have hardly moved
            speed, floor = speed * 1e-6, floor * 1e-6
        curves = [
            lambda t, v=speed[r], low=floor[r], at=jump[r]: np.maximum(v * t, low) + low * (t > at)
            for r in range(4)
        ]
        stuck, closed = (None, False, True)[trial % 3], trial % 7 == 0
        curve = curve_of(pairs, curves, steps, saturated=stuck, closed_form=closed)
        got, ends = curve.final(), curve.history().pairs
        assert ends is not None
        change = ends.drift
        for r in range(4):
            rest, vanished = got["converged"][r], got["saturated"][r]
            told = curve.notes(r).get("rejected_state")
            assert np.isnan(rest) == np.isnan(vanished) == np.isnan(got["rejected_drift"][r])
            if np.isnan(rest):
                assert told in (None, "saturated")
                continue
            assert 0 <= rest + vanished <= 1
            assert not (rest and vanished)
            one_way = (change[r] <= 0).all() or (change[r] >= 0).all()
            if told == "converged":
                assert vanished == 0
                assert rest > 0 or not one_way
            elif told == "saturated":
                assert rest == 0
                assert vanished > 0 or not one_way
                assert vanished >= got["collapsed"][r]
            if rows == 1:
                assert (rest == 1, vanished == 1) == (told == "converged", told == "saturated")
                assert rest + vanished in (0, 1)
            seen.add((told, rows == 1))
    words = (None, "converged", "falling", "rising", "collapsed", "saturated")
    assert seen == {(word, alone) for word in words for alone in (True, False)}
