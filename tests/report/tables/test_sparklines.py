"""Curves in the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from xpo_bench.report.content import assemble
from xpo_bench.report.curves import mean_curve
from xpo_bench.report.render.terminal import print_report
from xpo_bench.report.runs import group
from xpo_bench.report.tables.sparklines import BLOCKS, PLAIN, spark, spark_tables


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
    known = [v for v in values if v is not None]
    varies = 1 < len(values) <= width and bool(found) and max(known) > min(known)
    if varies and values[-1] == max(known):
        assert found[-1] == BLOCKS[-1]


def test_a_mean_over_seeds_is_taken_where_all_have_been_evaluated() -> None:
    curves = [rows((0, 0.0, 1.0), (10, 1.0, None)), rows((0, 1.0, 3.0), (5, 9.0, 9.0), (10, 3.0, 1.0))]
    assert mean_curve(curves, "kl") == [0.5, 2.0]
    assert mean_curve(curves, "gold_reward") == [2.0, None]
    assert mean_curve([], "kl") == []


@pytest.mark.parametrize(("encoding", "blocks"), [("utf-8", BLOCKS), ("ascii", PLAIN)])
def test_tables_in_the_encoding_of_the_terminal(encoding: str, blocks: str, tmp_path: Path) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, errors="replace"), width=110)
    (tmp_path / "curves").mkdir()
    curve = [{"step": s, "kl": s / 4, "rejected_logp": -s / 2} for s in range(9)]
    pq.write_table(pa.Table.from_pylist(curve), tmp_path / "curves" / "k0.parquet")
    print_report(console, assemble(tmp_path, [record()]))
    console.file.flush()
    out = raw.getvalue().decode(encoding)
    assert "dpo" in out
    assert blocks[0] in out
    assert blocks[-1] in out


def test_nothing_to_draw_is_nothing_said() -> None:
    assert spark_tables(group([record()]), lambda _: []) == []
