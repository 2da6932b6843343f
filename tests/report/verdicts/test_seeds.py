"""How many seeds would separate algorithms: the plan that --plan-seeds tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import NOWHERE, store_items

from xpo_bench.report.content import Comparison, assemble
from xpo_bench.report.items import item_reader, no_items
from xpo_bench.report.render.json import report_document, show_document
from xpo_bench.report.runs import group
from xpo_bench.report.verdicts.seeds import seeds_documents, seeds_table
from xpo_bench.report.verdicts.task import TaskVerdict, verdict_on
from xpo_bench.verdicts.words import runs_needed

Make = Callable[..., dict[str, Any]]


def cells(record: Make, difference: float = 0.02) -> list[dict[str, Any]]:
    """ipo is behind by `difference`, with a standard deviation of 0.03 over seeds."""
    return [
        record(a, seed=s, kl=1.0, attained_1=0.9 + i * (0.03 * (s - 1) - difference))
        for i, a in enumerate(("dpo", "ipo"))
        for s in range(3)
    ]


def judged(records: list[dict[str, Any]]) -> TaskVerdict:
    return verdict_on("bandit", group(records), no_items)


def test_the_plan_is_of_the_difference_and_the_spread_that_were_seen(record: Make) -> None:
    (document,) = seeds_documents([judged(cells(record))])
    assert (document["label"], document["against"], document["task"]) == ("ipo", "dpo", "bandit")
    assert document["difference"] == pytest.approx(-0.02)
    assert document["spread"] == pytest.approx(0.03)
    assert document["seeds"] == runs_needed(0.02, 0.03)
    found = seeds_table([judged(cells(record))])
    assert found is not None
    row = {c.header: c.cells[0] for c in found.columns}
    assert (row[""], row["against"], row["spread"]) == ("ipo", "dpo", "0.03")
    assert row["seeds"] == str(runs_needed(0.02, 0.03))


def test_the_seeds_that_were_asked_for_find_the_difference(record: Make) -> None:
    """As many as the plan says find it in about 80 % of studies."""
    needed = seeds_documents([judged(cells(record, 0.04))])[0]["seeds"]
    assert isinstance(needed, int)
    rng = np.random.default_rng(0)
    studies = rng.normal(0.04, 0.03, (2000, needed))
    t = studies.mean(1) / (studies.std(1, ddof=1) / np.sqrt(needed))
    from scipy.stats import t as student

    assert 0.76 < float(np.mean(2 * student.sf(np.abs(t), needed - 1) < 0.05)) < 0.93


def test_what_no_seeds_decide(record: Make) -> None:
    """Equal runs have no spread, and a difference that is tiny beside it takes more than anybody runs."""
    fixed = [record(a, seed=s, kl=1.0, attained_1=v) for a, v in (("dpo", 0.9), ("ipo", 0.5)) for s in (0, 1)]
    tiny = cells(record, 0.0001)
    for records in (fixed, tiny):
        found = seeds_table([judged(records)])
        assert found is not None
        assert {c.header: c.cells[0] for c in found.columns}["seeds"] == "–"
        assert seeds_documents([judged(records)])[0]["seeds"] is None


def test_where_items_decide_seeds_are_not_asked_for(record: Make, tmp_path: Path) -> None:
    records = [
        record(a, "travel", s, kl=1.0 + 0.001 * s, heldout_accuracy_at_1=v)  # three runs that differ
        for a, v in (("dpo", 0.9), ("ipo", 0.6))
        for s in range(3)
    ]
    for cell in records:
        right = 9 if cell["algorithm"]["name"] == "dpo" else 6
        outcomes = [float(7 * i % 10 < right) for i in range(10)]
        outcomes[0] = float(cell["seed"] > 0 or right == 6)  # one item of ten moves with the seed
        store_items(tmp_path, cell["key"], outcomes)
    verdict = verdict_on("travel", group(records), item_reader(tmp_path))
    found = seeds_table([verdict])
    assert found is not None
    row = {c.header: c.cells[0] for c in found.columns}
    assert verdict.rows[1].behind is not None
    assert verdict.rows[1].behind.runs == 3
    assert (row["seeds"], row["seeds,\ncorrected"]) == ("–", "–")
    (document,) = seeds_documents([verdict])
    assert (document["seeds"], document["seeds_corrected"]) == (None, None)  # JSON says what the table says


def test_one_seed_is_told_that_it_cannot_plan(record: Make) -> None:
    single = [record(a, kl=1.0, attained_1=v) for a, v in (("dpo", 0.9), ("ipo", 0.5))]
    report = assemble(NOWHERE, single, comparison=Comparison(plan_seeds=True))
    assert report.sentences("seeds") == ["no two algorithms were compared over several seeds"]
    assert assemble(NOWHERE, single).sentences("seeds") == []


def test_the_plan_stands_in_the_report_only_where_it_is_asked_for(record: Make) -> None:
    plain = assemble(NOWHERE, cells(record))
    asked = assemble(NOWHERE, cells(record), comparison=Comparison(plan_seeds=True))
    assert "How many seeds" not in {t.title for t in plain.tables}
    assert "How many seeds" in {t.title for t in asked.tables}
    assert "seeds_needed" not in show_document("r", plain)
    assert show_document("r", asked, plan_seeds=True)["seeds_needed"][0]["label"] == "ipo"
    assert "How many seeds" in {t["title"] for t in report_document(asked)["tables"]}
