"""Intervals over items hold what they say where a person's answers are alike, by person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import xpo_bench
from xpo_bench.verdicts.differences import ItemDifferences, over_items

PEOPLE, EACH, SPREAD, STUDIES = 40, 30, 0.3, 400


def covers(rng: np.random.Generator, by_person: bool) -> bool:
    """Whether the 95 % interval of one study holds the true difference, 0.1.

    Of every person's items one algorithm is right more often than the other, by a difference of their own.
    """
    p = np.clip(0.1 + SPREAD * rng.normal(size=PEOPLE), -0.9, 0.9)
    values = np.where(rng.random((PEOPLE, EACH)) < np.abs(p)[:, None], np.sign(p)[:, None], 0.0).ravel()
    people = np.repeat(np.arange(PEOPLE), EACH)
    names = [str(name) for name in (people if by_person else range(len(values)))]
    one = ItemDifferences(names, values, np.zeros(len(values), dtype=np.int64))
    found = over_items([one, one], ["run", "run"])
    assert found.half is not None
    return abs(found.mean - 0.1) <= found.half


def test_the_person_as_cluster_covers_and_the_item_does_not() -> None:
    clustered, single = (
        np.mean([covers(np.random.default_rng(seed), by_person) for seed in range(STUDIES)])
        for by_person in (True, False)
    )
    # three standard errors of a coverage of .95 over 400 studies
    assert clustered == pytest.approx(0.95, abs=0.033)
    assert single < 0.65


@pytest.mark.parametrize("column", ["cluster", "annotator", "worker"])
def test_the_column_of_a_set_becomes_the_cluster_of_its_items(tmp_path: Path, column: str) -> None:
    """From a file to the items that every interval is computed from; a prompt is no cluster then."""
    rows = [
        {"prompt": f"q{i % 3}", "chosen": "a", "rejected": "b", column: f"w{i % 4}", "split": split}
        for i in range(12)
        for split in ("train", "test")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = {"columns": {"cluster": "worker"}} if column == "worker" else {}
    result = xpo_bench.run("dpo", data=str(path), steps=3, seeds=1, out=tmp_path / "run", **words)  # type: ignore[arg-type]
    items = pd.read_parquet(tmp_path / "run" / "items" / f"{result.cells[0]['key']}.parquet")
    assert set(items.cluster) == {"w0", "w1", "w2", "w3"}
    assert set(items[items.split == "heldout"].groupby("cluster").size()) == {3}
