"""Metrics at matched cost, never extrapolated, and at the evaluation that a validation half prefers."""

from __future__ import annotations

from typing import Any

import pytest

from xpo_bench.report.runs import group
from xpo_bench.report.tables.equal_cost import at, best_point, matched_metrics, matched_tables


def rows(*points: tuple[int, float | None, float | None]) -> list[dict[str, Any]]:
    return [{"step": step, "kl": kl, "gold_reward": earned} for step, kl, earned in points]


def spending(*points: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [{"step": step, "total_flops": flops, "reward_accuracy": earned} for step, flops, earned in points]


def halves(*points: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [
        {"step": step, "kl": step / 10, "validation_accuracy": v, "test_accuracy": t} for step, v, t in points
    ]


def record(seed: int = 0, algorithm: str = "dpo") -> dict[str, Any]:
    return {
        "key": f"{algorithm}{seed}",
        "status": "ok",
        "seed": seed,
        "experiment": None,
        "algorithm": {"name": algorithm, "config": {}, "version": "1"},
        "task": {"name": "t", "version": 1},
        "train": {},
        "metrics": {"gold_reward": 5.0, "kl": 2.0},
    }


@pytest.mark.parametrize(
    ("points", "kl", "expected"),
    [
        ([(0, 0.0, 0.0), (1, 2.0, 4.0)], 1.0, 2.0),  # linear in KL
        ([(0, 0.0, 0.0), (1, 0.5, 4.0)], 1.0, None),  # never gets there
        ([(0, 2.0, 1.0), (1, 3.0, 4.0)], 1.0, None),  # was never below it
        ([(0, 0.0, 0.0), (1, 1.0, 3.0), (2, 0.2, 9.0), (3, 2.0, 9.0)], 1.0, 3.0),  # the first time counts
        ([(0, 0.0, 0.0), (1, None, None), (2, 2.0, 4.0)], 1.0, 2.0),  # not evaluated in between
        ([(0, 0.0, 0.0), (1, 1.0, None), (2, 2.0, 4.0)], 1.0, 2.0),
        ([(0, 1.0, 7.0)], 1.0, 7.0),
        ([], 1.0, None),
    ],
)
def test_metrics_at_a_kl(
    points: list[tuple[int, float | None, float | None]], kl: float, expected: float | None
) -> None:
    assert at(rows(*points), "gold_reward", "kl", kl) == expected


def test_no_metric_at_a_kl_where_one_seed_does_not_get_there() -> None:
    curves = {"dpo0": rows((0, 0.0, 0.0), (1, 2.0, 4.0)), "dpo1": rows((0, 0.0, 0.0), (1, 0.5, 1.0))}
    (found,) = matched_metrics(group([record(0), record(1)]), curves.__getitem__)
    assert found.metric == "gold_reward"
    assert found.at_kl[0.1] is not None
    assert found.at_kl[0.1].mean == pytest.approx(0.2)
    assert (found.at_kl[1.0], found.at_kl[10.0]) == (None, None)
    assert (found.flops, found.at_flops, found.best["test_accuracy"]) == (None, None, None)


def test_equal_operations_are_those_of_the_cheapest_run_of_the_task() -> None:
    curves = {
        "dpo0": spending((0, 0.0, 0.5), (10, 80.0, 0.9)),
        "dpo1": spending((0, 0.0, 0.5), (10, 100.0, 0.7)),
        "rso0": spending((0, 40.0, 0.5), (10, 240.0, 0.9)),  # its samples are paid for before the first step
    }
    records = [record(0), record(1), record(0, "rso")]
    dpo, rso = matched_metrics(group(records), curves.__getitem__)
    assert (dpo.flops, rso.flops) == (80.0, 80.0)
    assert dpo.at_flops is not None
    assert rso.at_flops is not None
    assert dpo.at_flops.mean == pytest.approx((0.9 + (0.5 + 0.8 * 0.2)) / 2)
    assert rso.at_flops.mean == pytest.approx(0.5 + 0.2 * 0.4)


def test_the_best_evaluation_is_chosen_by_one_half_and_read_on_the_other() -> None:
    curve = halves((0, 0.5, 0.5), (5, 0.9, 0.6), (10, 0.9, 0.8), (20, 0.7, 0.9))
    chosen = best_point([*curve, {"step": 21, "kl": 9.0}])
    assert chosen is not None
    assert chosen["step"] == 5  # the earliest of equals
    assert best_point([{"step": 0}]) is None
    (found,) = matched_metrics(group([record()]), lambda _: [*curve, {"step": 21, "kl": 9.0}])
    means = {name: (found.best[name], found.last[name]) for name in ("test_accuracy", "kl")}
    assert {n: (b and b.mean, e and e.mean) for n, (b, e) in means.items()} == {
        "test_accuracy": (0.6, 0.9),
        "kl": (0.5, 2.0),
    }
    assert found.best_step is not None
    assert found.best_step.mean == 5
    assert found.best["gold_reward"] is None


def test_tables_and_documents() -> None:
    curve = [
        a | b
        for a, b in zip(rows((0, 0.0, 0.0), (1, 2.0, 4.0)), halves((0, 0.5, 0.5), (1, 0.9, 0.6)), strict=True)
    ]
    (out,) = matched_metrics(group([record()]), lambda _: curve)
    at_cost, best = matched_tables([out])
    assert at_cost.title == "Metrics at matched KL and matched compute"
    assert best.title == "Last, and best on validation"
    headers = [c.header for c in at_cost.columns]
    assert "at KL 0.1" in headers
    assert not any("FLOP" in header for header in headers)  # nothing was counted
    assert best.columns[-1].header == "best at step"
    assert best.columns[-1].cells == ["1"]
    assert out.document()["at_kl"]["0.1"] is not None
    assert out.document()["best_step"] == {"mean": 1.0, "half": None, "n": 1}


def test_nothing_to_read_is_nothing_said() -> None:
    assert matched_tables(matched_metrics(group([record()]), lambda _: [])) == []
