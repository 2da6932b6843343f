"""Summaries against scipy and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from xpo_bench.report.runs import group
from xpo_bench.report.summary import summarise
from xpo_bench.statistics import censored, estimate

Make = Callable[..., dict[str, Any]]


def test_interval_is_scipy_s() -> None:
    values = [0.31, 0.35, 0.29, 0.4]
    got = estimate(values)
    assert got is not None
    low, high = scipy_stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert got.interval == pytest.approx((low, high))
    assert (got.mean, got.n) == pytest.approx((0.3375, 4))


def test_intervals_cover() -> None:
    """Three seeds: 95 % of the intervals hold the mean, within the error of 2,000 draws."""
    rng = np.random.default_rng(0)
    inside = [abs(e.mean) <= e.half for e in map(estimate, rng.normal(size=(2000, 3))) if e and e.half]
    assert abs(np.mean(inside) - 0.95) < 0.015


def test_one_run_has_no_interval(record: Make) -> None:
    assert estimate([0.5]).interval is None  # type: ignore[union-attr]
    assert estimate([]) is None
    assert estimate([None, float("nan")]) is None
    (row,) = summarise([record(kl=0.2)])
    assert row["metrics"]["kl"] == {"mean": 0.2, "ci95": None, "n": 1}


def test_null_and_absent(record: Make) -> None:
    rows = summarise([record(seed=0, kl=None, brier=0.2), record(seed=1, kl=None)])
    assert rows[0]["metrics"]["kl"] == {"mean": None, "ci95": None, "n": 0}
    assert rows[0]["metrics"]["brier"]["n"] == 1
    assert "regret" not in rows[0]["metrics"]


def test_collapse_step_is_censored(record: Make) -> None:
    (row,) = summarise([record(seed=s, collapse_step=v) for s, v in enumerate([20.0, None, 50.0])])
    assert row["metrics"]["collapse_step"] == {"share": pytest.approx(2 / 3), "median": 50.0, "n": 3}
    assert censored([None, None, 10.0]) == {"share": pytest.approx(1 / 3), "median": None, "n": 3}
    assert censored([None, 10.0])["median"] is None
    assert censored([]) == {"share": None, "median": None, "n": 0}


def test_failures_are_never_numbers(record: Make) -> None:
    cells = [
        record(seed=0, kl=1.0),
        record(seed=1, status="diverged", kl=3.0),
        record(seed=2, status="failed", error="no"),
    ]
    (row,) = summarise(cells)
    assert row["status"] == {"ok": 1, "diverged": 1, "failed": 1}
    assert row["n"] == 3
    assert row["metrics"]["kl"]["mean"] == 2.0


def test_rows_are_per_algorithm_config_task_experiment(record: Make) -> None:
    cells = [
        *(record(config={"beta": b}, seed=s, kl=b) for b in (0.5, 0.1) for s in (1, 0)),
        record("ipo", kl=1.0),
        record("ipo", task="travel", kl=1.0, lr=0.1),
        record("ipo", experiment="overfit", kl=2.0),
        record("sft", kl=1.0, lr=0.1),
        record("sft", kl=2.0, lr=0.2),
        record("sft", task="cycle", steps=100),
        record("sft", task="cycle", steps=200),
    ]
    labels = [(g.label, g.task, len(g.records)) for g in group(cells)]
    assert labels == [
        ("dpo beta=0.1", "bandit", 2),
        ("dpo beta=0.5", "bandit", 2),
        ("ipo", "bandit", 1),
        ("sft lr=0.1", "bandit", 1),
        ("sft lr=0.2", "bandit", 1),
        ("ipo", "bandit (overfit)", 1),
        ("sft", "cycle steps=100", 1),
        ("sft", "cycle steps=200", 1),
        ("ipo", "travel", 1),
    ]
    assert [r.seed for r in group(cells)[0].records] == [0, 1]
    assert group(list(reversed(cells)))[0].label == "dpo beta=0.1"
    assert summarise([]) == []


def sweep(record: Make, slope: float, direction: int = 1, **more: Any) -> list[dict[str, Any]]:
    settled = {"notes": {"kl_settled": True}} | more
    return [
        record(
            config={"beta": b, "alpha": 1.0},
            seed=s,
            kl=2.0 * b**slope,
            regulariser=["beta", direction],
            **settled,
        )
        for b in (0.05, 0.1, 0.5)
        for s in (0, 1)
    ]


def test_control(record: Make) -> None:
    for row in summarise(sweep(record, -1.0)):
        assert row["metrics"]["control"]["mean"] == pytest.approx(1.0)
        assert row["metrics"]["control"]["ci95"] == [pytest.approx(1.0), pytest.approx(1.0)]
    assert summarise(sweep(record, 0.5, -1))[0]["metrics"]["control"]["mean"] == pytest.approx(0.5)
    assert summarise(sweep(record, 0.0))[0]["metrics"]["control"]["mean"] == pytest.approx(0.0)


def test_control_interval_is_that_of_the_regression(record: Make) -> None:
    rng = np.random.default_rng(0)
    cells = sweep(record, -1.0)
    for c in cells:
        c["metrics"]["kl"] *= float(np.exp(rng.normal(0, 0.1)))
    x, y = (
        [np.log(v) for v in column]
        for column in zip(
            *((c["algorithm"]["config"]["beta"], c["metrics"]["kl"]) for c in cells), strict=True
        )
    )
    fit = scipy_stats.linregress(x, y)
    got = summarise(cells)[0]["metrics"]["control"]
    half = scipy_stats.t.ppf(0.975, len(x) - 2) * fit.stderr
    assert got["mean"] == pytest.approx(-fit.slope)
    assert got["ci95"] == [pytest.approx(-fit.slope - half), pytest.approx(-fit.slope + half)]


def test_control_is_null_unless_every_run_settled(record: Make) -> None:
    cells = sweep(record, -1.0)
    cells[0]["notes"] = {"kl_settled": False}
    assert summarise(cells)[0]["metrics"]["control"]["mean"] is None
    cells[0]["notes"] = {}
    assert summarise(cells)[0]["metrics"]["control"]["mean"] is None
    cells = sweep(record, -1.0)
    cells[0]["metrics"]["kl"] = 1e-32  # a policy that has not moved: rounding, whose logarithm says nothing
    assert summarise(cells)[0]["metrics"]["control"]["mean"] is None
    cells = sweep(record, -1.0)
    cells[0]["status"] = "diverged"
    assert summarise(cells)[0]["metrics"]["control"]["mean"] is None
    cells = sweep(record, -1.0)
    cells[0]["metrics"]["kl"] = 0.0
    assert summarise(cells)[0]["metrics"]["control"]["mean"] is None


def test_control_needs_a_sweep_of_that_field_alone(record: Make) -> None:
    one = [record(config={"beta": 0.1}, kl=1.0, regulariser=["beta", 1], notes={"kl_settled": True})]
    assert "control" not in summarise(one)[0]["metrics"]
    other = sweep(record, -1.0)
    assert "control" not in summarise(other, {"dpo": ("alpha", 1)})[0]["metrics"]
    mixed = [
        record(config={"beta": b, "alpha": b}, kl=b, regulariser=["beta", 1], notes={"kl_settled": True})
        for b in (0.1, 0.2)
    ]
    assert "control" not in summarise(mixed)[0]["metrics"]


def test_control_beside_the_optimum(record: Make) -> None:
    cells = sweep(record, -1.0)
    for c in cells:
        c["notes"]["optimum_kl"] = c["algorithm"]["config"]["beta"] ** -2.0
    assert summarise(cells)[0]["metrics"]["control"]["optimum"] == pytest.approx(2.0)
