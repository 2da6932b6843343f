"""`RUN/items/KEY.parquet`: beside every finished record, whole, and no hindrance to a run without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xpo_bench
from xpo_bench.errors import StoreError
from xpo_bench.result import Result
from xpo_bench.runner.item_file import item_parquet, item_table
from xpo_bench.runner.record import Record
from xpo_bench.runner.store import Store
from xpo_bench.train.items import COLUMNS, TEXTS, Items

Run = Callable[..., Result]
KEY = "0123456789abcdef01234567"
SCHEMA = {
    "split": pa.string(), "item": pa.string(), "cluster": pa.string(),
    "chosen_logp": pa.float64(), "rejected_logp": pa.float64(),
    "chosen_log_ratio": pa.float64(), "rejected_log_ratio": pa.float64(),
    "chosen_length": pa.int64(), "rejected_length": pa.int64(),
    "correct": pa.float64(),
    "correct_at_0.3": pa.float64(), "correct_at_1": pa.float64(), "correct_at_3": pa.float64(),
}  # fmt: skip


def items(n: int, value: float = 1.0) -> Items:
    texts = {name: [f"{name} {i}" for i in range(n)] for name in TEXTS}
    values = {name: np.full(n, value) for name in COLUMNS if name not in TEXTS}
    values["correct_at_3"] = np.full(n, np.nan)
    return Items(texts, values)


def record(status: str = "ok") -> Record:
    return cast(Record, {"schema": 1, "key": KEY, "status": status})


@pytest.mark.parametrize("n", [0, 1, 300])
def test_the_schema(tmp_path: Path, n: int) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / f"{KEY}.parquet").write_bytes(item_parquet(items(n)))
    table = item_table(tmp_path, KEY)
    assert table is not None
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == SCHEMA
    assert table.num_rows == n
    assert table["correct_at_3"].null_count == n
    assert table["correct"].null_count == 0
    assert item_table(tmp_path, "f" * 24) is None


def test_a_rerun_overwrites_and_a_failure_leaves_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    path = tmp_path / "items" / f"{KEY}.parquet"
    store.write_cell(record(), [{"step": 0}], items(3))
    assert pq.read_table(path).num_rows == 3
    store.write_cell(record(), [{"step": 0}], items(5))
    assert pq.read_table(path).num_rows == 5
    store.write_cell(record("failed"), [])
    assert not path.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_items_are_there_before_the_record_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.prepare()
    written: list[str] = []
    write = Store._write

    def fails_at_the_record(self: Store, path: Path, content: bytes) -> None:
        written.append(path.parent.name)
        if path.suffix == ".json":
            raise StoreError("no space")
        write(self, path, content)

    monkeypatch.setattr(Store, "_write", fails_at_the_record)
    with pytest.raises(StoreError):
        store.write_cell(record(), [{"step": 0}], items(3))
    assert written == ["curves", "items", "cells"]
    assert not store.done(KEY)


def test_a_directory_of_an_earlier_version_takes_items_and_reads_without(
    run: Run, tmp_path: Path, warm: Callable[..., Any]
) -> None:
    out = tmp_path / "r"
    result = run("dpo,ipo", out=out, seeds=2, tasks="bandit")
    shutil.rmtree(out / "items")
    for words in (
        ["show", out],
        ["status", out],
        ["report", out, "--json", "-"],
        ["export", out, "--to", "p"],
    ):
        done = warm(*words)
        assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "README.md", "cells.parquet", "curves.parquet",
    ]  # fmt: skip
    assert sorted(result.to_datasets()) == ["cells", "curves"]
    assert warm("merge", out, "-o", "all").code == 0
    again = run("dpo,ipo", out=out, seeds=3, tasks="bandit")  # more of it: those that are new have items
    assert again.computed == 2
    assert len(list((out / "items").glob("*.parquet"))) == 2


def test_export_has_the_items_of_every_cell(run: Run, tmp_path: Path, warm: Callable[..., Any]) -> None:
    result = run("dpo,ipo", out=tmp_path / "r", seeds=2, tasks="travel")
    assert warm("export", "r", "--to", "p").code == 0
    table = datasets.load_dataset(str(tmp_path / "p"), "items", split="train", cache_dir=str(tmp_path / "c"))
    frame = pd.DataFrame(table.to_dict())
    assert list(frame.columns) == ["key", "algorithm", "config", "task", "seed", *COLUMNS]
    assert len(frame) == 4 * (256 + 156)
    for cell in result.cells:
        own = frame[(frame["key"] == cell["key"]) & (frame["split"] == "heldout")]
        assert own["correct"].mean() == cell["metrics"]["heldout_reward_accuracy"]
        assert set(own["algorithm"]) == {cell["algorithm"]["name"]}
        assert set(own["seed"]) == {cell["seed"]}
    assert result.to_datasets()["items"].features == table.features
    card = (tmp_path / "p" / "README.md").read_text("utf-8")
    assert f"`items`: {len(frame)} rows" in card
    assert "config_name: items" in card


def test_persons_of_a_file_are_its_clusters(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"x{i % 3}", "chosen": "a", "rejected": "b", "who": f"p{i % 2}" if i < 6 else None}
        for i in range(9)
    ]
    data = tmp_path / "set.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words: dict[str, Any] = {"data": str(data), "seeds": 1, "steps": 2}
    named, plain = (
        xpo_bench.run("dpo", out=tmp_path / str(i), columns=columns, **words)
        for i, columns in enumerate(({"person": "who"}, None))
    )
    clusters = [
        pd.read_parquet(tmp_path / str(i) / "items" / f"{result.cells[0]['key']}.parquet")["cluster"]
        for i, result in enumerate((named, plain))
    ]
    assert clusters[0].iloc[:6].tolist() == ["p0", "p1"] * 3
    assert clusters[0].iloc[6:].tolist() == clusters[1].iloc[6:].tolist()
    assert clusters[1].nunique() == 3
    # another person is other data; where nobody is named nothing changes
    prints = [result.cells[0]["task"]["data"]["fingerprint"] for result in (named, plain)]
    assert prints[0] != prints[1]
