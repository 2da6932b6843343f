"""Courses in the terminal, and read-outs at equal KL that never extrapolate."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from xpo_bench.report.curves import BLOCKS, PLAIN, at_kl, equal_kl, mean_curve, print_equal_kl, print_sparks, spark
from xpo_bench.report.stats import group


def rows(*points: tuple[int, float | None, float | None]) -> list[dict[str, Any]]:
    return [{"step": step, "kl": kl, "gold_reward": earned} for step, kl, earned in points]


def record(seed: int = 0) -> dict[str, Any]:
    return {
        "key": f"k{seed}",
        "status": "ok",
        "seed": seed,
        "experiment": None,
        "algorithm": {"name": "dpo", "config": {}, "version": "1"},
        "task": {"name": "t", "version": 1},
        "train": {},
        "metrics": {"gold_reward": 5.0, "kl": 2.0},
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], BLOCKS),
        ([1.0, 1.0], "▁▁"),
        ([0.0, None, 7.0], "▁ █"),
        ([], ""),
        ([None], ""),
        ([float("nan"), 1.0], " ▁"),
    ],
)
def test_sparks(values: list[float | None], expected: str) -> None:
    assert spark(values) == expected


@given(st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300)), max_size=200), st.integers(2, 40))
def test_sparks_fit_and_end_where_the_curve_ends(values: list[float | None], width: int) -> None:
    found = spark(values, width)
    assert len(found) <= width
    if len(values) > 1 and found and values[-1] is not None and values[-1] == max(v for v in values if v is not None) > min(
        v for v in values if v is not None
    ) and len(values) <= width:  # fmt: skip
        assert found[-1] == BLOCKS[-1]


def test_a_mean_over_seeds_is_taken_where_all_have_been_evaluated() -> None:
    curves = [rows((0, 0.0, 1.0), (10, 1.0, None)), rows((0, 1.0, 3.0), (5, 9.0, 9.0), (10, 3.0, 1.0))]
    assert mean_curve(curves, "kl") == [0.5, 2.0]
    assert mean_curve(curves, "gold_reward") == [2.0, None]
    assert mean_curve([], "kl") == []


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
def test_read_outs_at_a_kl(points: list[tuple[int, float | None, float | None]], kl: float, expected: float | None) -> None:
    assert at_kl(rows(*points), "gold_reward", kl) == expected


def test_no_read_out_where_one_seed_does_not_get_there() -> None:
    (g,) = group([record(0), record(1)])
    curves = {"k0": rows((0, 0.0, 0.0), (1, 2.0, 4.0)), "k1": rows((0, 0.0, 0.0), (1, 0.5, 1.0))}
    found = equal_kl(g, lambda r: curves[r["key"]])
    assert found is not None
    name, values = found
    assert name == "gold_reward"
    assert values[0.1] is not None
    assert values[0.1].mean == pytest.approx(0.2)
    assert (values[1.0], values[10.0]) == (None, None)


@pytest.mark.parametrize(("encoding", "blocks"), [("utf-8", BLOCKS), ("ascii", PLAIN)])
def test_tables_in_the_encoding_of_the_terminal(encoding: str, blocks: str) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, errors="replace"), width=110)
    groups = group([record()])
    course = rows(*((s, s / 4, s / 2) for s in range(9)))
    print_sparks(console, groups, lambda _: course)
    if encoding == "utf-8":
        print_equal_kl(console, groups, lambda _: course)
    console.file.flush()
    out = raw.getvalue().decode(encoding)
    assert "dpo" in out
    assert blocks[0] in out
    assert blocks[-1] in out
    if encoding == "utf-8":
        assert "at KL 0.1" in out


def test_nothing_to_draw_is_nothing_said() -> None:
    console = Console(file=io.StringIO())
    print_sparks(console, group([record()]), lambda _: [])
    print_equal_kl(console, group([record()]), lambda _: [])
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
