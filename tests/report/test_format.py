"""Numbers and names as they are printed."""

from __future__ import annotations

import pytest

from xpo_bench.report.format import clean, listed, mean_pm, narrow, number, si_pm
from xpo_bench.statistics import Estimate


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (None, "–", "–"),
        (float("nan"), "–", "–"),
        (0.0, "0", "0"),
        (0.012345, "0.0123", "0.0123"),
        (-0.00123, "-0.00123", "-0.0012"),
        (0.00976, "0.00976", "0.0098"),
        (1.2e-7, "1.2e-7", "1.2e-7"),
        (-1.26e-17, "-1.3e-17", "-1e-17"),
        (12.345, "12.3", "12.3"),
        (999.7, "1000", "1000"),
        (14413.2, "14413", "14413"),
        (2123456.0, "2.1e6", "2.1e6"),
        (-123.4, "-123", "-123"),
        (1, "1", "1"),
    ],
)
def test_numbers(value: float | None, text: str, short: str) -> None:
    assert number(value) == text
    assert narrow(value) == short


def test_mean_and_half_interval() -> None:
    assert mean_pm(Estimate(0.712, 0.0312, 3)) == "0.712±0.031"
    assert mean_pm(Estimate(0.712, None, 1)) == "0.712"
    assert mean_pm(Estimate(0.712, 1e-17, 3)) == "0.712"  # the runs agree
    assert mean_pm(None) == "–"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "–"),
        (Estimate(0.0, None, 1), "0"),
        (Estimate(12.0, None, 1), "12"),
        (Estimate(3.14e12, 0.21e12, 3), "3.14±0.21 T"),
        (Estimate(42503679488.0, None, 1), "42.5 G"),
        (Estimate(999.7e9, None, 1), "1 T"),
        (Estimate(2.5e3, 130.0, 3), "2.5±0.13 k"),
        (Estimate(1e30, None, 1), "1.0e9 Z"),
    ],
)
def test_si_prefixes(found: Estimate | None, text: str) -> None:
    assert si_pm(found) == text


def test_a_half_interval_above_a_hundred_is_no_power_of_ten() -> None:
    assert mean_pm(Estimate(-916.0, 184.2, 3)) == "-916±184"


def test_clean() -> None:
    assert clean("a\x1b[31mb\x1b[0m\u200b\nc") == "ab c"
    assert clean("τ ≥ ½") == "τ ≥ ½"


def test_a_sentence_lists_forty_names_and_counts_the_rest() -> None:
    names = [f"n{i}" for i in range(1045)]
    assert listed(names[:40]) == ", ".join(names[:39]) + " and n39"
    assert listed(names) == ", ".join(names[:40]) + " and 1,005 more"
