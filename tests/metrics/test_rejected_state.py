"""One word for the end of a run: by the scale of its regulariser, over a window, with `collapsed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from curves import At, Pairs, curve_of
from typing_extensions import Doc

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.metrics.curve import Curve
from xpo_bench.train.evaluation.scale import log_ratio_scale
from xpo_bench_plugins.algorithms.bon import BestOfN
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.npo import NPO
from xpo_bench_plugins.algorithms.sft import SFT
from xpo_bench_plugins.algorithms.slic import SLiC


def state(curve: Curve, run: int = 0) -> Any:
    return curve.notes(run).get("rejected_state")


def test_the_threshold_is_in_units_of_the_regulariser(pairs: Pairs) -> None:
    """DPO at any β: ln(t)/β never stops, e^(−t) does."""

    def endless(beta: float) -> At:
        return lambda t: -np.log1p(t) / beta

    def bounded(beta: float) -> At:
        return lambda t: -3 * (1 - np.exp(-t / 20)) / beta

    for beta in (0.01, 0.1, 1.0, 10.0):
        curve = curve_of(pairs, [endless(beta), bounded(beta)], scale=np.full(2, 1 / beta))
        assert [state(curve, r) in ("falling", "collapsed") for r in range(2)] == [True, False], beta
        assert state(curve, 1) == "converged"
    # without a declared scale it is in nats: −.026 is rest
    assert state(curve_of(pairs, [lambda t: -1.4 - 0.026 * (t > 150)])) == "converged"
    assert state(curve_of(pairs, [lambda t: -1.4 - 0.026 * (t > 180)], scale=np.array([0.1]))) == "falling"


@dataclass(frozen=True)
class Weighted(Algorithm):
    name: ClassVar[str] = "weighted"
    regulariser: ClassVar[tuple[str, int] | None] = ("weight", +1)

    weight: Annotated[float, Doc("weight of the likelihood, dimensionless")] = 4.0


@dataclass(frozen=True)
class Plain(Algorithm):
    name: ClassVar[str] = "plain"
    regulariser: ClassVar[tuple[str, int] | None] = ("strength", +1)

    strength: float = 4.0


def test_the_scale_comes_from_what_an_algorithm_declares() -> None:
    scales = [log_ratio_scale(a) for a in (DPO(), DPO(beta=10.0), IPO(tau=0.5), NPO(beta=2.0), Plain())]
    assert scales == [10.0, 0.1, 2.0, 0.5, 0.25]
    # none declared, a weight, and one that loosens as it grows: nats
    assert [
        log_ratio_scale(a) for a in (SFT(), SLiC(nll_weight=3.0), BestOfN(candidates=64), Weighted())
    ] == [10.0] * 4


@pytest.mark.parametrize("steps", [1, 5, 10, 40])
def test_short_runs_are_not_judged(pairs: Pairs, steps: int) -> None:
    curve = curve_of(pairs, [lambda t: -9.0, lambda t: -1.0 * t], steps)
    for r in range(2):
        notes = curve.notes(r)
        assert "rejected_state" not in notes
        assert notes["rejected_state_reason"] == (
            f"a run of {steps} steps, whose last fifth has fewer than 10"
        )
    assert state(curve_of(pairs, [lambda t: -1.0 * t], 50)) == "collapsed"


def test_a_closed_form_has_neither_drift_nor_collapse(pairs: Pairs) -> None:
    """A tilt to 1e-14 stands still, whether its reward has a finite optimum or not."""
    curve = curve_of(pairs, [lambda t: -32.0 * (t > 0), lambda t: -3.0 * (t > 0)], closed_form=True)
    got = curve.final()
    assert np.isnan(got["rejected_drift"]).all()
    assert np.isnan(got["collapsed"][0])
    assert np.isnan(got["collapse_step"]).all()
    assert got["collapsed"][1] == 0
    assert curve.notes(0)["rejected_state_reason"] == "a closed form, which no step trains"


def test_saturation_is_no_convergence(pairs: Pairs) -> None:
    """Below the threshold it is a collapse, above it is none; what still moves is not saturated yet."""
    at_once = curve_of(pairs, [lambda t: -40.0 * (t > 0), lambda t: -4.0 * (t > 0)], saturated=True)
    assert [state(at_once, r) for r in range(2)] == ["saturated", "saturated"]
    assert list(at_once.final()["collapsed"]) == [1, 0]
    assert at_once.final()["collapse_step"][0] == 1
    not_at_all = curve_of(pairs, [lambda t: -40.0 * (t > 0)], saturated=False)
    assert (state(not_at_all), not_at_all.final()["collapsed"][0]) == ("converged", 0)
    assert state(curve_of(pairs, [lambda t: -1.0 * t, lambda t: 0.1 * t], saturated=True)) == "collapsed"
    assert state(curve_of(pairs, [lambda t: 0.1 * t], saturated=True)) == "rising"
    brief = curve_of(pairs, [lambda t: -40.0 * (t > 0)], 10, saturated=True)
    assert (state(brief), brief.final()["collapsed"][0]) == ("saturated", 1)


def test_standing_at_the_start_is_not_convergence(pairs: Pairs) -> None:
    """A learning rate far too small has no drift either."""
    reasons = [
        curve_of(pairs, [at]).notes(0)["rejected_state_reason"]
        for at in (lambda t: 0.0, lambda t: -1e-11 * t, lambda t: -0.002 * t)
    ]
    assert (
        reasons[0] == reasons[1] == "moved by no more than 0.01/β since the start, as much as a drift may be"
    )
    assert reasons[2] == "a tenth or more of all that it moved is in the last fifth: a slow run, not at rest"
    assert "rejected_state" not in curve_of(pairs, [lambda t: 0.0]).notes(0)


def test_collapsed_and_collapse_step_agree_for_every_curve(pairs: Pairs) -> None:
    """At least one half of the pairs if and only if there is a step, wherever both are known."""
    rng = np.random.default_rng(0)
    seen = set()
    for trial in range(300):
        steps, rows = int(rng.choice([5, 20, 60, 200])), int(rng.integers(1, 5))
        speed, floor = rng.normal(0, 0.2, (4, rows)), rng.uniform(-20, 0, (4, rows))
        jump = rng.random((4, rows)) * steps
        curves = [
            lambda t, v=speed[r], low=floor[r], at=jump[r]: np.maximum(v * t, low) + low * (t > at)
            for r in range(4)
        ]
        saturated, closed = (None, False, True)[trial % 3], trial % 5 == 0
        curve = curve_of(pairs, curves, steps, saturated=saturated, closed_form=closed)
        got = curve.final()
        for r in range(4):
            fraction, step = got["collapsed"][r], got["collapse_step"][r]
            told = state(curve, r)
            if np.isnan(fraction):
                assert np.isnan(step)
                assert told is None
                continue
            assert (fraction >= 0.5) == (not np.isnan(step))
            assert (told == "collapsed") <= (fraction >= 0.5)
            assert (fraction >= 0.5) <= (told in ("collapsed", "saturated"))
            seen.add((told, fraction >= 0.5))
    assert {state for state, _ in seen} == {None, "converged", "falling", "rising", "collapsed", "saturated"}
