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


def means_of(result: xpo_bench.Result, metric: str, label: str) -> float:
    (mean,) = (
        r["metrics"][metric]["mean"]
        for r in result.summary()
        if r["label"] == label and metric in r["metrics"]
    )
    return float(mean)


def test_the_report_as_data(tmp_path: Path, warm: Callable[..., Any]) -> None:
    result = xpo_bench.run("dpo,ipo", tasks="deterministic,bandit", steps=60, seeds=3, out=tmp_path / "r")
    done = warm("report", result.out, "--json", "-")
    assert done.code == 0, done.err
    found = done.json
    board = found["scoreboard"]
    assert sorted((row["task"], row["label"]) for row in board["rows"]) == [
        ("bandit", "dpo"),
        ("bandit", "ipo"),
        ("deterministic", "dpo"),
        ("deterministic", "ipo"),
    ]
    assert next(m for m in board["metrics"] if m["name"] == "frontier_gap")["better"] == "lower"
    rows = {
        (row["task"], row["label"]): row["metrics"]["frontier_gap"]
        for row in board["rows"]
        if "frontier_gap" in row["metrics"]
    }
    means = {
        (r["task"], r["label"]): r["metrics"]["frontier_gap"]["mean"]
        for r in result.summary()
        if "frontier_gap" in r["metrics"]
    }
    assert {task for task, _ in means} == {"bandit"}
    assert {name: row["mean"] for name, row in rows.items()} == pytest.approx(means)
    # a mark is that of the tables, and what a table marks of the headline is the best of the verdict
    tables = {t["title"].split(":")[0]: t for t in found["tables"] if ": adam" in t["title"]}
    for row in board["rows"]:
        columns = {c["header"]: c for c in tables[row["task"]]["columns"]}
        place = columns[""]["cells"].index(row["label"])
        for name, value in row["metrics"].items():
            if name in columns:
                assert value["best"] == columns[name]["best"][place], (row, name)
    (verdict,) = (v for v in found["verdicts"] if v["task"] == "bandit")
    assert (verdict["metric"], verdict["rows"][0]["said"]) == ("attained_1", "best")
    (against,) = found["against"]
    assert (against["label"], against["task"], against["metric"]) == ("ipo", "bandit", "attained_1")
    assert against["difference"] == pytest.approx(
        means_of(result, "attained_1", "ipo") - means_of(result, "attained_1", "dpo")
    )
    assert found["findings"]
    assert len(found["summary"]) == 4
    assert warm("report", result.out, "--json", "-", "--md", "-").code == 2
