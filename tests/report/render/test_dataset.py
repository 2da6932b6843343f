"""A run as data sets: read back as the hub would, with nothing of the machine that made it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import xpo_bench
from xpo_bench.report.render.dataset import POINT, _local

SECRET = "hf_thisIsAPlantedSecret"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> xpo_bench.Result:
    out = tmp_path_factory.mktemp("dataset") / "r"
    return xpo_bench.run("dpo,ipo", tasks="deterministic,bandit", steps=5, seeds=2, out=out)


def test_what_is_exported_is_read_back(
    result: xpo_bench.Result, tmp_path: Path, warm: Callable[..., Any]
) -> None:
    done = warm("export", result.out, "--to", tmp_path / "published")
    assert done.code == 0, done.err
    cells, curves = (
        datasets.load_dataset(
            str(tmp_path / "published"), name, split="train", cache_dir=str(tmp_path / "cache")
        )
        for name in ("cells", "curves")
    )
    records = {r["key"]: r for r in result.cells}
    assert len(cells) == len(records) == 8
    for row in cells:
        record = records[row["key"]]
        assert json.loads(row["config"]) == record["algorithm"]["config"]
        assert (row["task"], row["seed"], row["status"]) == (record["task"]["name"], record["seed"], "ok")
        measured = {name: row[name] for name in cells.column_names if name in record["metrics"]}
        assert measured == {name: None if v is None else float(v) for name, v in record["metrics"].items()}
    absent = next(row for row in cells if row["task"] == "deterministic")
    assert absent["frontier_gap"] is None  # no reward is known there
    assert set(POINT) < set(curves.column_names)
    assert {row["step"] for row in curves} == {0, 1, 2, 5} | {
        row["step"] for row in curves if row["step"] in (3, 4)
    }
    again = result.to_datasets()
    assert sorted(again["cells"].to_list(), key=lambda row: row["key"]) == sorted(
        cells.to_list(), key=lambda row: row["key"]
    )
    assert again["curves"].features == curves.features


def test_nothing_of_the_environment_travels(tmp_path: Path, warm: Callable[..., Any]) -> None:
    done = warm(
        "run",
        "--algos",
        "dpo",
        "--tasks",
        "one_pair",
        "--steps",
        "3",
        "--seeds",
        "1",
        "--out",
        "r",
        HF_TOKEN=SECRET,
    )
    assert done.code == 0, done.err
    assert warm("export", "r", "--to", "published", HF_TOKEN=SECRET).code == 0
    assert (
        warm("report", "r", "--html", "r.html", "--md", "r.md", "--json", "r.json", HF_TOKEN=SECRET).code == 0
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in (tmp_path / "published").iterdir())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("owner/name", "owner/name"),
        ("/home/me/prefs.jsonl", "prefs.jsonl"),
        ("C:\\me\\prefs.jsonl", "prefs.jsonl"),
        ("data/prefs.jsonl", "data/prefs.jsonl"),
        (None, None),
    ],
)
def test_directories_stay_at_home(name: str | None, told: str | None) -> None:
    assert _local(name) == told


def test_refusals(result: xpo_bench.Result, tmp_path: Path, warm: Callable[..., Any]) -> None:
    assert warm("export", tmp_path / "none", "--to", tmp_path / "p").code == 2
    done = warm("export", result.out, "--to", result.out)
    assert done.code == 2
    assert "a directory of its own" in done.err


def test_the_report_as_data(result: xpo_bench.Result, warm: Callable[..., Any]) -> None:
    done = warm("report", result.out, "--json", "-")
    assert done.code == 0, done.err
    found = done.json
    assert [row["label"] for row in found["scoreboard"]["rows"]] == ["dpo", "ipo"]
    gap = next(m for m in found["scoreboard"]["metrics"] if m["name"] == "frontier_gap")
    assert gap["tasks"] == ["bandit"]
    rows = {row["label"]: row["metrics"]["frontier_gap"] for row in found["scoreboard"]["rows"]}
    means = {
        r["label"]: r["metrics"]["frontier_gap"]["mean"] for r in result.summary() if r["task"] == "bandit"
    }
    assert {label: row["mean"] for label, row in rows.items()} == pytest.approx(means)
    assert [label for label, row in rows.items() if row["best"]] == [min(means, key=means.__getitem__)]
    assert found["findings"]
    assert len(found["summary"]) == 4
    assert warm("report", result.out, "--json", "-", "--md", "-").code == 2
