"""How a budget is shared among stages, when it is evaluated, and how the learning rate rises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpo_bench import Stage
from xpo_bench.train.budget import evaluation_steps, rate_scale, stage_steps


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.integers(1, 10_000))
def test_stages_share_every_step(weights: list[float], steps: int) -> None:
    stages = [Stage(share=w / sum(weights)) for w in weights]
    shared = stage_steps(stages, steps)
    assert sum(shared) == steps
    assert min(shared) >= 0
    for stage, given_steps in zip(stages, shared, strict=True):
        assert abs(given_steps - stage.share * steps) <= 1


@pytest.mark.parametrize(
    ("n", "steps", "want"), [(3, 10, [3, 4, 3]), (2, 2000, [1000, 1000]), (4, 3, [1, 1, 0, 1])]
)
def test_equal_stages(n: int, steps: int, want: list[int]) -> None:
    assert stage_steps([Stage(share=1 / n)] * n, steps) == want


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must sum to 1, got 0\.9"):
        stage_steps([Stage(share=0.5), Stage(share=0.4)], 10)


def test_evaluation_points_of_a_short_and_a_long_run() -> None:
    assert evaluation_steps(1) == [0, 1]
    assert evaluation_steps(10) == list(range(11))
    assert evaluation_steps(200) == sorted({0, 1, 2, 5, 10, 20, 50, 100, 200, *range(0, 201, 10)})


@given(st.integers(1, 100_000))
def test_evaluation_points(steps: int) -> None:
    points = evaluation_steps(steps)
    assert points == sorted(set(points))
    assert points[0] == 0
    assert points[-1] == steps
    assert {p for p in (1, 2, 5, 10, 20, 50, 100, 200, 500) if p <= steps} <= set(points)
    assert {round(k * steps / 20) for k in range(21)} <= set(points)
    assert len(points) <= 21 + 3 * len(str(steps))


def test_warm_up_is_linear_then_constant() -> None:
    assert [rate_scale(t, 100, 0.1) for t in (0, 4, 9, 10, 99)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate_scale(t, 100, 0.0) for t in (0, 99)] == [1, 1]


def test_annealing_is_linear_and_ends_at_the_last_step() -> None:
    assert [rate_scale(t, 100, 0.0, 0.5) for t in (0, 49, 50, 75, 99)] == pytest.approx([1, 1, 1, 0.5, 0.02])
    assert [rate_scale(t, 10, 1.0, 1.0) for t in (0, 4, 9)] == pytest.approx([0.1, 0.5, 0.1])


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_warm_up_never_falls_and_never_stands_at_zero(steps: int, share: float) -> None:
    scales = [rate_scale(t, steps, share) for t in range(steps)]
    assert scales == sorted(scales)
    assert 0 < scales[0] <= scales[-1] <= 1
    assert scales[-1] == 1
