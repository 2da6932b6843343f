"""Held-out items as they are read from a run directory: none, broken and old ones are as if not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from narrow import present
from reports import store_items

from xpo_bench.report.items import CHOSEN_LONGER, CHOSEN_SHORTER, TIE, item_reader, no_items


def test_what_is_read(tmp_path: Path) -> None:
    store_items(
        tmp_path, "k", [1.0, 0.5, None], at_1=[0.0, 0.25, 1.0], longer=[2, -1, 0], cluster=list("aab")
    )
    found = present(item_reader(tmp_path)("k"))
    assert list(found.item) == ["item 0", "item 1", "item 2"]
    assert list(found.cluster) == ["a", "a", "b"]
    assert found.stratum.tolist() == [CHOSEN_LONGER, CHOSEN_SHORTER, TIE]
    np.testing.assert_array_equal(found.correct["correct"], [1.0, 0.5, np.nan])
    np.testing.assert_array_equal(found.correct["correct_at_1"], [0.0, 0.25, 1.0])


def test_training_items_judge_nobody(tmp_path: Path) -> None:
    store_items(tmp_path, "k", [1.0, 1.0], split="train")
    assert item_reader(tmp_path)("k") is None
    assert no_items("k") is None


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "items" / "empty.parquet").write_bytes(b"")
    read = item_reader(tmp_path)
    assert [read(key) for key in ("absent", "broken", "empty")] == [None, None, None]
    assert item_reader(tmp_path / "nowhere")("k") is None


@pytest.mark.parametrize(
    "lacking", ["item", "cluster", "split", "correct", "chosen_length", "rejected_length"]
)
def test_a_table_that_lacks_a_column(tmp_path: Path, lacking: str) -> None:
    store_items(tmp_path, "k", [1.0, 0.0])
    path = tmp_path / "items" / "k.parquet"
    pq.write_table(pq.read_table(path).drop_columns([lacking]), path)
    assert item_reader(tmp_path)("k") is None


def test_a_table_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    columns = {name: ["x"] for name in ("item", "cluster", "correct", "chosen_length", "rejected_length")}
    pq.write_table(pa.table(columns | {"split": ["heldout"]}), tmp_path / "items" / "k.parquet")
    assert item_reader(tmp_path)("k") is None


def test_a_cell_is_read_once(tmp_path: Path) -> None:
    store_items(tmp_path, "k", [1.0])
    read = item_reader(tmp_path)
    first = read("k")
    (tmp_path / "items" / "k.parquet").unlink()
    assert read("k") is first
