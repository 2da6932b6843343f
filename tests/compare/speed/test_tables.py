"""What a comparison says, from its document."""

from __future__ import annotations

from io import StringIO
from typing import Any, cast

from rich.console import Console

from xpo_bench.compare.speed.rule import RatioDocument
from xpo_bench.compare.tables import Page, markdown, print_page, speed_page


def ratio_of(estimate: float, detectable: float = 1.05) -> dict[str, Any]:
    return {
        "estimate": estimate,
        "lower": estimate / 1.02,
        "upper": estimate * 1.02,
        "detectable": detectable,
        "pairs": 8,
    }


def document(*rows: dict[str, Any], gate: str = "cpu_s") -> dict[str, Any]:
    side = {"name": "a|b[bold]", "commit": None, "versions": {"torch": "2", "python": "3"}}
    whole = {
        "algorithm": "dpo",
        "workload": "table",
        "wall": ratio_of(1.3),
        "step_s": {"old": 1e-3, "new": 1.2e-3},
    }
    return {
        "sides": {"old": side, "new": side | {"commit": "0123456789abcdef"}},
        "protocol": {"pairs": 8, "blocks": 12, "block_s": 0.1, "device": "cpu", "gate": gate, "seed": 0},
        "platform": "Linux x86_64",
        "comparisons": len(rows),
        "false_alarm_bound": 1e-4 * len(rows),
        "verdict": rows[0]["verdict"],
        "rows": [whole | row for row in rows],
    }


PASS = {"verdict": "pass", "test": ratio_of(1.01), "confirmation": None}
REGRESSION = {"verdict": "regression", "test": ratio_of(1.2), "confirmation": ratio_of(1.19)}
UNDERPOWERED_REPLICATION = {
    "verdict": "inconclusive",
    "test": ratio_of(1.2),
    "confirmation": ratio_of(1.3, 1.4),
}


def page(found: dict[str, Any]) -> Page:
    return speed_page(cast(RatioDocument, found))


def headers(found: dict[str, Any]) -> list[str]:
    return [column.header for column in page(found).tables[0].columns]


def test_the_replication_has_a_column_where_there_are_any() -> None:
    assert "replication" not in headers(document(PASS))
    found = page(document(REGRESSION, PASS)).tables[0]
    assert next(c for c in found.columns if c.header == "replication").cells == ["1.190 (≥ 1.167)", "–"]


def test_the_smallest_ratio_is_that_of_all_pairs() -> None:
    assert "could have shown is 1.050." in page(document(PASS)).lines[-1]
    assert (
        "could have shown is 1.400 at worst; above 1.25 nothing is decided"
        in page(document(PASS, UNDERPOWERED_REPLICATION)).lines[-1]
    )


def test_comparisons_are_counted() -> None:
    said = page(document(PASS, PASS, REGRESSION)).lines
    assert any(line.startswith("3 comparisons: ") and line.endswith("at most 0.03 %.") for line in said)
    assert any(line.startswith("1 comparison: ") for line in page(document(PASS)).lines)


def test_the_clock_that_decides_is_named() -> None:
    assert page(document(PASS)).tables[0].title.startswith("CPU time")
    assert page(document(PASS, gate="gpu_s")).tables[0].title.startswith("GPU time")


def test_names_stay_text() -> None:
    assert r"OLD: a\|b\[bold\] (python 3, torch 2)" in markdown(page(document(PASS)))
    console = Console(width=100, record=True, file=StringIO())
    print_page(console, page(document(REGRESSION)))
    text = console.export_text()
    assert "a|b[bold], commit 012345678 (python 3, torch 2)" in text
    assert text.rstrip().endswith("Verdict: REGRESSION")
