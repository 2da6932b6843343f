"""Curves that settle, fall, recover or break off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation
from xpo_bench.metrics.collapse import THRESHOLD
from xpo_bench.metrics.curve import Curve

Pairs = Callable[..., Evaluation]
CurveAt = Callable[[int], Any]
STEPS = [0, 1, 2, 5, *range(10, 201, 10)]


def run(
    pairs: Pairs, curves: Sequence[Callable[[int], Any]], steps: Sequence[int] = STEPS, length: float = 1.0
) -> dict[str, np.ndarray]:
    """Final metrics of runs whose rejected log-ratios follow the given curves."""
    curve = Curve(steps[-1])
    for t in steps:
        rejected = np.array([np.atleast_1d(curve_at(t)) for curve_at in curves], float)
        curve.add(pairs(np.zeros_like(rejected), rejected, t, rejected_length=np.full_like(rejected, length)))
    return curve.final()


def test_converged_falling_never(pairs: Pairs) -> None:
    got = run(
        pairs,
        [
            lambda t: -10.0 * np.log1p(t),  # falls as ln t for ever
            lambda t: -20.0 * (1 - np.exp(-t / 10)),  # far below the threshold, but converged
            lambda t: -2.0 * np.log1p(t) / 6,  # falls, never far
        ],
    )
    np.testing.assert_allclose(got["collapsed"], [1, 0, 0])
    assert got["rejected_drift"][0] == pytest.approx(-10 * np.log(201 / 161))
    assert abs(got["rejected_drift"][1]) < 1e-5
    assert got["collapse_slope"][0] == pytest.approx(-10, abs=0.1)
    assert abs(got["collapse_slope"][1]) < 0.01
    assert got["collapse_step"][0] == 1  # −10 ln 2 = −6.93 at the first evaluation after the start
    # below the threshold from step 5 on, −20(1 − e^(−½)) = −7.87, but that is where it converges
    assert np.isnan(got["collapse_step"][1])
    assert np.isnan(got["collapse_step"][2])


def test_collapse_step_holds_to_the_end(pairs: Pairs) -> None:
    """A dip that recovers is none; the step is that of the last entry below."""
    got = run(
        pairs,
        [
            lambda t: -20.0 - 0.01 * t if t in (5, 10, 20) or t >= 100 else 0.0,
            lambda t: -20.0 if t == 5 else 0.0,
        ],
    )
    assert got["collapse_step"][0] == 100
    assert np.isnan(got["collapse_step"][1])


def test_half_of_the_pairs(pairs: Pairs) -> None:
    got = run(pairs, [lambda t: [-0.1 * t, 0.0], lambda t: [-0.1 * t, -0.001 * t]])
    np.testing.assert_allclose(got["collapsed"], [0.5, 0.5])
    assert got["collapse_step"][0] == 70


def test_threshold_is_per_token(pairs: Pairs) -> None:
    def curve_at(t: int) -> float:
        return -0.05 * t  # −10 at the end

    assert run(pairs, [curve_at], length=1)["collapsed"][0] == 1
    assert run(pairs, [curve_at], length=2)["collapsed"][0] == 0
    assert pytest.approx(-6.907755) == THRESHOLD


def test_a_run_that_diverged_keeps_its_last_finite_evaluation(pairs: Pairs) -> None:
    curve = Curve(200)
    for t in STEPS:
        rejected = np.array([[-0.1 * t], [-0.1 * t], [-0.1 * t if t < 100 else np.nan]])
        alive = np.array([True, t <= 50, True])
        curve.add(pairs(np.zeros((3, 1)), rejected, t), alive)
    got = curve.final()
    np.testing.assert_allclose(got["rejected_logp"], [-20, -5, -9])
    np.testing.assert_allclose(
        got["rejected_drift"], [-4, -1, -2]
    )  # over the last fifth of the steps each made
    np.testing.assert_allclose(got["collapsed"], [1, 0, 1])
    assert [len(curve.rows(r)) for r in range(3)] == [len(STEPS), 9, 13]
    assert curve.rows(1)[-1]["step"] == 50


def test_the_dead_do_not_come_back(pairs: Pairs) -> None:
    curve = Curve(2)
    for t, alive in enumerate([True, False, True]):
        curve.add(pairs([-float(t)], [0.0], t), np.array([alive]))
    assert curve.final()["chosen_logp"][0] == 0
    assert [row["step"] for row in curve.rows(0)] == [0]


def test_closed_form_policies_have_no_curve_at(pairs: Pairs) -> None:
    """Evaluated before and after only: no drift, and no claim of collapse unless nothing is below."""
    got = run(pairs, [lambda t: -20.0 * t / 1000, lambda t: -2.0 * t / 1000], steps=[0, 1000])
    assert np.isnan(got["rejected_drift"]).all()
    assert np.isnan(got["collapsed"][0])
    assert got["collapsed"][1] == 0
    assert np.isnan(got["collapse_slope"]).all()


def test_very_short_runs(pairs: Pairs) -> None:
    """Two numbers a step or two apart tell nothing: the last fifth has ten steps, or there is no drift."""
    for steps in ([0, 1], [0, 1, 2, 3], range(6), range(11), range(46)):
        got = run(pairs, [lambda t: -1.0 * t, lambda t: -0.001 * t], steps=list(steps))
        assert np.isnan(got["rejected_drift"]).all()
        assert got["collapsed"][1] == 0  # nothing is below the threshold
    assert np.isnan(got["collapsed"][0])
    assert run(pairs, [lambda t: -1.0 * t], steps=list(range(51)))["rejected_drift"][0] == -10
    start = run(pairs, [lambda t: -1.0 * t], steps=[0])
    assert np.isnan(start["rejected_drift"][0])
    assert start["rejected_logp"][0] == 0


def test_quarters_are_enough(pairs: Pairs) -> None:
    """Held-out sets may be scored at quarters only: the drift is read from three quarters on."""
    assert run(pairs, [lambda t: -0.1 * t], steps=[0, 50, 100, 150, 200])["rejected_drift"][
        0
    ] == pytest.approx(-5)


def test_the_same_step_twice(pairs: Pairs) -> None:
    curve = Curve(10)
    curve.add(pairs([-1], [-1], 0))
    curve.add(pairs([-1], [-2], 10))
    curve.add(pairs([-1], [-3], 10))
    assert curve.final()["rejected_logp"][0] == -3
    assert [row["step"] for row in curve.rows(0)] == [0, 10]


def test_rows_and_extra(pairs: Pairs) -> None:
    curve = Curve(200)
    for t in STEPS:
        extra = {"kl": np.array([2.0 - 1 / (t + 1)])} if t else {"kl": np.array([np.nan])}
        curve.add(pairs([-1], [-1], t), extra=extra)
    rows = curve.rows(0)
    assert "kl" not in rows[0]
    assert rows[-1]["kl"] == pytest.approx(2, abs=0.01)
    assert "below_threshold" not in rows[-1]
    assert "below_threshold" not in curve.final()
    assert curve.final()["kl"][0] == rows[-1]["kl"]
    assert curve.notes(0)["kl_settled"] is True


def test_kl_settled(pairs: Pairs) -> None:
    curve = Curve(200)
    for t in STEPS:
        curve.add(
            pairs([[-1], [-1], [-1]], [[-1], [-1], [-1]], t),
            extra={"kl": np.array([0.01 * t, 1 - np.exp(-t), 0.0])},
        )
    assert [curve.notes(r)["kl_settled"] for r in range(3)] == [False, True, True]
    short = Curve(10)
    for t in range(11):
        short.add(pairs([-1], [-1], t), extra={"kl": np.array([1.0])})
    assert "kl_settled" not in short.notes(0)
    lone = Curve(1)
    lone.add(pairs([-1], [-1], 0))
    assert "kl_settled" not in lone.notes(0)


def test_unpaired_collapse(pairs: Pairs) -> None:
    curve = Curve(200)
    for t in STEPS:
        curve.add(pairs([[-1.0, -1.0]], [[-0.1 * t]], t, paired=False))
    assert curve.final()["collapsed"][0] == 1
    only_desirable = Curve(200)
    for t in STEPS:
        only_desirable.add(pairs([[-1.0]], [[-1.0]], t, paired=False, valid_rejected=np.array([[False]])))
    assert not {"collapsed", "rejected_drift", "collapse_step"} & set(only_desirable.final())


def test_nothing_added() -> None:
    assert Curve(10).final() == {}
