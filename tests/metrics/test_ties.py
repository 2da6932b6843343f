"""One rule for what is equal up to rounding, in every count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation
from xpo_bench.metrics.accuracy import DECIDED
from xpo_bench.metrics.collapse import THRESHOLD
from xpo_bench.metrics.curve import Curve, evaluate_point
from xpo_bench.metrics.gold import win_rate

Pairs = Callable[..., Evaluation]
FLOAT32 = float(np.finfo(np.float32).eps)
ACCURACIES = ("reward_accuracy", "ranking_accuracy", "ranking_accuracy_avg")


def point(pairs: Pairs, chosen: Any, rejected: Any, **more: Any) -> dict[str, float]:
    return {
        name: float(values[0]) for name, values in evaluate_point(pairs(chosen, rejected, **more)).items()
    }


def calibration(pairs: Pairs, q: float, p: float = 0.9, **more: Any) -> float:
    return point(pairs, [0.0], [0.0], implied=np.array([[q]]), p_chosen=np.array([[p]]), **more)[
        "calibration_error"
    ]


@pytest.mark.parametrize("off", [0.0, 1e-12, -1e-12, 9e-10, -9e-10])
def test_a_claim_of_one_half_up_to_rounding_is_one_half(pairs: Pairs, off: float) -> None:
    assert calibration(pairs, 0.5 + off) == pytest.approx(0.0, abs=1e-9)


def test_claims_beyond_rounding_have_a_side(pairs: Pairs) -> None:
    assert calibration(pairs, 0.5 + 1e-6) == pytest.approx(0.4, abs=1e-5)
    assert calibration(pairs, 0.5 - 1e-6) == pytest.approx(0.4, abs=1e-5)
    # in float32 an ulp of ½ is 6e-8
    assert calibration(pairs, 0.5 + 1e-6, rounding=FLOAT32) == pytest.approx(0.0, abs=1e-5)
    assert calibration(pairs, 0.5 + 1e-4, rounding=FLOAT32) == pytest.approx(0.4, abs=1e-3)


def test_the_edges_of_bins_are_rounded_to_the_upper_one(pairs: Pairs) -> None:
    """.7 in float32 is .69999999: with .75 it makes one bin, whose errors cancel."""
    q, p = np.array([[np.float32(0.7), 0.75]], float), np.array([[0.65, 0.8]])
    found = point(pairs, [0.0, 0.0], [0.0, 0.0], implied=q, p_chosen=p, rounding=FLOAT32)["calibration_error"]
    assert found == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(("sign", "beyond"), [(1, 1.0), (-1, 0.0)])
def test_accuracies_at_a_margin_below_rounding(pairs: Pairs, sign: int, beyond: float) -> None:
    near = point(
        pairs, [-500.0 + sign * 2e-5], [-500.0], rounding=FLOAT32
    )  # scores of −500 are known to 6e-5 in float32
    assert [near[name] for name in ACCURACIES] == [0.5] * 3
    far = point(pairs, [-500.0 + sign * 2e-3], [-500.0], rounding=FLOAT32)
    assert [far[name] for name in ACCURACIES] == [beyond] * 3
    exact = point(pairs, [-500.0 + sign * 2e-5], [-500.0])
    assert [exact[name] for name in ACCURACIES] == [beyond] * 3


def test_accuracy_by_length_follows_the_same_rule(pairs: Pairs) -> None:
    lengths = {"chosen_length": [3, 1], "rejected_length": [1, 3], "rounding": FLOAT32}
    assert point(pairs, [-500 + 2e-5, -500 - 2e-5], [-500, -500], **lengths)["accuracy_lc"] == 0.5


def test_fractions_beyond_a_threshold(pairs: Pairs) -> None:
    """A number within rounding of the threshold is not beyond it, on either side."""
    for off, decided in ((1e-12, 0.0), (-1e-12, 0.0), (1e-6, 1.0)):
        assert point(pairs, [DECIDED + off], [0.0])["determinism"] == decided
    for off, fell in ((-1e-12, 0.0), (-1e-6, 1.0)):
        assert point(pairs, [-300.0 + off], [0.0], chosen_ref=[-300.0])["displaced_fraction"] == fell
    single = {"chosen_ref": [-300.0], "rounding": FLOAT32}
    assert point(pairs, [-300.0 - 3e-5], [0.0], **single)["displaced_fraction"] == 0.0
    assert point(pairs, [-300.0 - 3e-3], [0.0], **single)["displaced_fraction"] == 1.0


@pytest.mark.parametrize(("off", "share"), [(-1e-12, 0.0), (1e-12, 0.0), (-1e-6, 1.0)])
def test_collapse_at_its_thresholds(pairs: Pairs, off: float, share: float) -> None:
    """Of the log-ratio at the end, and of the drift over the last fifth."""
    ends = Curve(100)
    for step, rejected in ((0, 0.0), (80, THRESHOLD + 1.0), (100, THRESHOLD + off)):
        ends.add(pairs([0.0], [rejected], step))
    assert ends.final()["collapsed"][0] == share
    drifts = Curve(100)
    for step, rejected in ((0, 0.0), (80, -20.0), (100, -20.1 + off)):
        drifts.add(pairs([0.0], [rejected], step))
    assert drifts.final()["collapsed"][0] == share


def test_equal_rewards_computed_in_another_order_tie() -> None:
    assert 0.1 + 0.2 != 0.3
    assert win_rate([[0.1 + 0.2]], [[0.3]]) == 0.5
    assert win_rate([[0.3]], [[0.1 + 0.2]]) == 0.5
    assert win_rate([[0.3 + 1e-9]], [[0.3]]) == 1.0
    assert win_rate([[0.0, 1e6]], [[1e-17, 1e6]]) == 0.5


def test_a_policy_that_has_not_moved_has_converged(pairs: Pairs) -> None:
    """Its KL is rounding, of which no part is 2 %."""
    curve = Curve(100)
    for step, kl in ((0, 0.0), (80, 1e-33), (100, 7e-33)):
        curve.add(pairs([0.0], [0.0], step), extra={"kl": np.array([kl])})
    assert curve.notes(0)["kl_settled"] is True
    moving = Curve(100)
    for step, kl in ((0, 0.0), (80, 1e-9), (100, 7e-9)):
        moving.add(pairs([0.0], [0.0], step), extra={"kl": np.array([kl])})
    assert moving.notes(0)["kl_settled"] is False
