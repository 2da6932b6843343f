"""The declared margins: one table, read under the names that metrics have on held-out rows and at a KL."""

from __future__ import annotations

import pytest
from narrow import present

from xpo_bench.metrics.margins import MARGINS, Margin, margin_of


@pytest.mark.parametrize(
    ("name", "base", "margin"),
    [
        ("attained", 0.9, 0.02),
        ("attained_0.3", 0.9, 0.02),
        ("attained_1", 0.9, 0.02),
        ("reward_accuracy", 0.9, 0.02),
        ("heldout_reward_accuracy", 0.9, 0.02),
        ("heldout_accuracy_at_3", 0.9, 0.02),
        ("win_rate_at_0.3", 0.5, 0.02),
        ("kl", 2.0, 0.1),
        ("kl", 1e-9, 0.01),
        ("rejected_logp", -2.0, 0.1),
        ("rejected_logp", -50.0, 1.0),
        ("pairs_per_s", 1000.0, 50.0),
    ],
)
def test_the_margin_is_the_larger_of_its_two_parts(name: str, base: float, margin: float) -> None:
    assert present(margin_of(name)).at(base) == pytest.approx(margin)


@pytest.mark.parametrize("name", ["loss", "collapse_step", "heldout_", "at_1", ""])
def test_what_is_not_declared_has_none(name: str) -> None:
    assert margin_of(name) is None


def test_how_a_margin_reads() -> None:
    assert [str(margin) for margin in (Margin(0.02), Margin(0.1, 0.02), Margin(relative=0.05), Margin())] == [
        "0.02",
        "0.1 or 2 %",
        "5 %",
        "0",
    ]


def test_every_margin_allows_something() -> None:
    assert all(margin.at(1.0) > 0 for margin in MARGINS.values())
