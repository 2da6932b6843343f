"""The simulation behind the table of docs/ab.md, with fewer trials."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("ab_power", ROOT / "benchmarks" / "ab_power.py")
assert SPEC is not None
assert SPEC.loader is not None
ab_power = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ab_power)


@pytest.mark.parametrize("noise", [0.02, 0.08, 0.16])
def test_false_alarms_are_rare(noise: float) -> None:
    assert ab_power.shares(1.0, noise, 200)["regression"] <= 0.01


def test_ten_percent_are_caught_where_noise_is_low() -> None:
    assert ab_power.shares(1.1, 0.02, 100)["regression"] >= 0.97


def test_noise_that_hides_everything_is_inconclusive() -> None:
    found = ab_power.shares(1.1, 0.5, 100)
    assert found["inconclusive"] >= 0.95
    assert found["regression"] == 0


def test_the_documented_table_is_the_simulated_one() -> None:
    page = (ROOT / "docs" / "ab.md").read_text("utf-8")
    row = re.search(r"^\| 2 % \| (.*) \|$", page, re.MULTILINE)
    assert row is not None
    caught = [float(cell.split("/")[0]) / 100 for cell in row[1].split("|")]
    found = [ab_power.shares(ratio, 0.02, 100)["regression"] for ratio in ab_power.RATIOS]
    assert found == pytest.approx(caught, abs=0.2)
