"""Who is best may depend on the budget of KL, and then the sentence says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xpo_bench.report.items import no_items
from xpo_bench.report.runs import group
from xpo_bench.report.verdicts.screen import Screen
from xpo_bench.report.verdicts.task import verdict_on

Make = Callable[..., dict[str, Any]]


def cells(record: Make, far: float) -> list[dict[str, Any]]:
    """dpo is behind ipo within 1 nat by .05, and `far` ahead of it within 3."""
    out = []
    for seed in range(5):
        noise = 0.001 * (seed % 3)
        near = {"kl": 2.0, "attained_1": 0.91 + noise, "attained_3": 0.9 + far - noise}
        out.append(record("dpo", seed=seed, **near))
        out.append(record("ipo", seed=seed, kl=1.5, attained_1=0.96 - noise, attained_3=0.9 + noise))
    return out


@pytest.mark.parametrize(("far", "told"), [(0.09, True), (-0.2, False)])
def test_another_best_within_another_budget_is_told(record: Make, far: float, told: bool) -> None:
    found = verdict_on("bandit", group(cells(record, far)), no_items)
    assert [row.group.label for row in found.rows] == ["ipo", "dpo"]
    assert [row.said for row in found.rows] == ["best", "worse"]
    (sentence,) = Screen([found]).sentences()
    assert ("within 3 nats best is dpo (0.989±0.001" in sentence) == told
    assert bool(found.elsewhere) == told
