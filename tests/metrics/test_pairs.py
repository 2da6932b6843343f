"""Point metrics of pairs against counts by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xpo_bench.contract.metric import Evaluation
from xpo_bench.metrics.accuracy import generalization_gap
from xpo_bench.metrics.curve import evaluate_point
from xpo_bench.metrics.throughput import acceptance_rate, pairs_per_s, prepare_s, tokens_per_s

Pairs = Callable[..., Evaluation]


def test_three_accuracies_differ(pairs: Pairs) -> None:
    """Row 0 is right; row 1 by log-ratio and average, not by sum; row 2 ties everywhere; row 3 is wrong."""
    ev = pairs(
        [-1, -6, -2, -9],
        [-2, -5, -2, -3],
        chosen_ref=[-1.5, -8, -2, -9],
        rejected_ref=[-1.5, -5, -2, -4],
        chosen_length=[1, 4, 1, 1],
        rejected_length=[1, 2, 1, 2],
    )
    got = {k: float(v[0]) for k, v in evaluate_point(ev).items()}
    assert got["reward_accuracy"] == pytest.approx(2.5 / 4)
    assert got["ranking_accuracy"] == pytest.approx(1.5 / 4)
    assert got["ranking_accuracy_avg"] == pytest.approx(2.5 / 4)
    # chosen longer: row 1, right; chosen shorter: row 3, wrong
    assert got["accuracy_lc"] == pytest.approx(0.5)
    assert got["chosen_logp"] == -4.5
    assert got["displacement"] == pytest.approx((0.5 + 2 + 0 + 0) / 4)
    assert got["displaced_fraction"] == 0
    assert got["chosen_prob"] == pytest.approx((np.exp(-1) + np.exp(-1.5) + np.exp(-2) + np.exp(-9)) / 4)
    assert got["rejected_prob"] == pytest.approx((np.exp(-2) + np.exp(-2.5) + np.exp(-2) + np.exp(-1.5)) / 4)
    assert not {"kl", "calibration_error", "brier", "entropy"} & set(got)


def test_rounding_is_a_tie(pairs: Pairs) -> None:
    got = evaluate_point(pairs([-1 + 1e-13, -1 - 1e-13], [-1, -1]))
    assert got["reward_accuracy"][0] == 0.5
    assert evaluate_point(pairs([-1e-12], [0]))["displaced_fraction"][0] == 0


def test_accuracy_lc_needs_both_strata(pairs: Pairs) -> None:
    assert "accuracy_lc" not in evaluate_point(pairs([-1], [-2], chosen_length=[2]))
    ev = pairs(
        [[-1, -1], [-1, -1]],
        [[-2, -2], [-2, -2]],
        chosen_length=np.array([[2.0, 3], [1, 3]]),
        rejected_length=np.full((2, 2), 2.0),
    )
    got = evaluate_point(ev)["accuracy_lc"]
    assert np.isnan(got[0])
    assert got[1] == 1


def test_the_longer_completion_as_a_rule(pairs: Pairs) -> None:
    lengths = {"chosen_length": [3, 1, 2, 5], "rejected_length": [2, 2, 2, 1]}
    got = evaluate_point(pairs([-1, -1, -1, -1], [-2, -2, -2, -2], **lengths))
    assert got["longer_accuracy"][0] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    untold = pairs([-1, -1], [-2, -2], chosen_length=[3, 1], rejected_length=[2, 2], p_chosen=[0.9, 0.5])
    assert evaluate_point(untold)["longer_accuracy"][0] == 1  # a row without a preferred side is left out
    assert "longer_accuracy" not in evaluate_point(pairs([-1], [-2]))  # one length everywhere


def test_determinism(pairs: Pairs) -> None:
    edge = np.log(0.999 / 0.001)
    got = evaluate_point(pairs([edge + 1e-6, edge - 1e-6, 0, 50], [0, 0, 0, 0]))
    assert got["determinism"][0] == 0.5


def test_undecided_pairs_count_for_calibration_only(pairs: Pairs) -> None:
    ev = pairs([-1, -100], [-2, -200], p_chosen=[1.0, 0.5], implied=np.array([[0.9, 0.7]]))
    got = evaluate_point(ev)
    assert got["chosen_logp"][0] == -1
    assert got["rejected_logp"][0] == -2
    assert got["reward_accuracy"][0] == 1
    assert got["brier"][0] == pytest.approx((0.01 + 0.04) / 2)
    assert got["calibration_error"][0] == pytest.approx((0.1 + 0.2) / 2)


def test_calibration_error_is_orientation_free(pairs: Pairs) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.5, 1, (1, 300)), rng.uniform(0, 1, (1, 300))
    zeros = np.zeros((1, 300))
    got = evaluate_point(pairs(zeros, zeros, p_chosen=p, implied=q))["calibration_error"][0]
    flipped = evaluate_point(pairs(zeros, zeros, p_chosen=1 - p, implied=1 - q))["calibration_error"][0]
    assert got == pytest.approx(flipped)
    both_q, both_p = np.concatenate([q[0], 1 - q[0]]), np.concatenate([p[0], 1 - p[0]])
    place = np.minimum((both_q * 10).astype(int), 9)
    ten_bins = sum(abs((both_q - both_p)[place == b].sum()) for b in range(10)) / 600
    assert got == pytest.approx(ten_bins)


def test_calibrated_and_overconfident(pairs: Pairs) -> None:
    zeros = np.zeros((1, 4))
    p = np.array([[0.55, 0.72, 0.88, 0.99]])
    assert evaluate_point(pairs(zeros, zeros, p_chosen=p, implied=p))["calibration_error"][
        0
    ] == pytest.approx(0)
    sure = evaluate_point(pairs(zeros, zeros, p_chosen=np.full((1, 4), 0.7), implied=np.ones((1, 4))))
    assert sure["calibration_error"][0] == pytest.approx(0.3)
    coin = evaluate_point(pairs(zeros, zeros, p_chosen=np.ones((1, 4)), implied=np.full((1, 4), 0.5)))
    assert coin["calibration_error"][0] == 0
    assert coin["brier"][0] == 0.25


def test_runs_of_different_size_and_kind(pairs: Pairs) -> None:
    """Padding is never read, and a run that claims no probability has no calibration."""
    ev = pairs(
        [[-1, -3], [-1, np.nan]],
        [[-2, -2], [-2, np.nan]],
        valid=np.array([[True, True], [True, False]]),
        p_chosen=np.array([[0.8, 0.9], [0.8, np.nan]]),
        implied=np.array([[0.8, 0.9], [np.nan, np.nan]]),
    )
    got = evaluate_point(ev)
    np.testing.assert_allclose(got["reward_accuracy"], [0.5, 1])
    np.testing.assert_allclose(got["chosen_logp"], [-2, -1])
    assert got["brier"][0] == pytest.approx(0)
    assert np.isnan(got["brier"][1])


def test_unpaired_sets(pairs: Pairs) -> None:
    """Desirable and undesirable completions are independent: no ranking, no margin, sizes differ."""
    ev = pairs(
        [[-1, -3, -5]],
        [[-2, -8]],
        paired=False,
        p_chosen=np.full((1, 5), np.nan),
        valid=np.array([[True, True, False]]),
        valid_rejected=np.array([[True, False]]),
        chosen_ref=[-2, -2, -2],
    )
    got = evaluate_point(ev)
    both = {
        "chosen_logp",
        "rejected_logp",
        "chosen_prob",
        "rejected_prob",
        "displacement",
        "displaced_fraction",
    }
    assert set(got) == both | {
        f"{side}_{what}" for side in ("forget", "retain") for what in ("logp", "token_logp", "change")
    }
    assert got["chosen_logp"][0] == -2
    assert got["rejected_logp"][0] == -2
    assert got["displaced_fraction"][0] == 0.5
    none = pairs([[-1]], [[-1]], paired=False, valid=np.array([[True]]), valid_rejected=np.array([[False]]))
    assert "rejected_logp" not in evaluate_point(none)


def test_forget_and_retain(pairs: Pairs) -> None:
    """Undesirable rows (the rejected side) are forgotten, desirable ones retained; each has its own rows."""
    ev = pairs(
        [[-1, -3, -99]],
        [[-12, -8]],
        paired=False,
        p_chosen=np.full((1, 3), np.nan),
        valid=np.array([[True, True, False]]),
        valid_rejected=np.array([[True, True]]),
        chosen_ref=[-2, -3, -3],
        rejected_ref=[-4, -8],
        chosen_length=[1, 2, 3],
        rejected_length=[4, 2],
    )
    got = {k: float(v[0]) for k, v in evaluate_point(ev).items()}
    assert (got["forget_logp"], got["forget_token_logp"], got["forget_change"]) == (-10, -3.5, -4)
    assert (got["retain_logp"], got["retain_token_logp"], got["retain_change"]) == (-2, -1.25, 0.5)
    paired = evaluate_point(pairs([-1], [-2]))
    assert not [name for name in paired if name.startswith(("forget", "retain"))]


def test_arithmetic() -> None:
    assert pairs_per_s(100, 4) == 25
    assert pairs_per_s(100, 0) is None
    assert tokens_per_s(100, 0.5) == 200
    assert prepare_s([1.0, 0.5]) == 1.5
    assert acceptance_rate(1, 4) == 0.25
    assert acceptance_rate(0, 0) is None
    assert generalization_gap(0.9, 0.7) == pytest.approx(0.2)
