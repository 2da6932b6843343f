"""`xpo-bench data` in process: its words, its options, and what it says of sets that are nearly nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import xpo_bench.cli.data  # noqa: F401  the command registers itself
from xpo_bench.cli.base import main

PAIR = {"prompt": "q", "chosen": "a longer one", "rejected": "two"}


def called(tmp_path: Path, rows: list[dict[str, Any]], *words: str) -> Result:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return CliRunner().invoke(main, ["data", str(path), "--quiet", *words])


def document(tmp_path: Path, rows: list[dict[str, Any]], *words: str) -> Any:
    def no_number(word: str) -> None:
        raise AssertionError(word)

    done = called(tmp_path, rows, "--json", *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout, parse_constant=no_number)


@pytest.mark.parametrize("rows", [1, 5])
def test_an_accuracy_without_spread_has_no_interval(tmp_path: Path, rows: int) -> None:
    found = document(tmp_path, [{**PAIR, "prompt": f"q{i}"} for i in range(rows)])["length_bias"][
        "characters"
    ]
    assert found == {"accuracy": 1.0, "ci95": None, "n": rows, "clusters": rows}


def test_one_row_is_singular(tmp_path: Path) -> None:
    assert "1 pair of 1 row, 1 prompt\n" in called(tmp_path, [PAIR]).stdout
    assert "2 pairs of 2 rows, 1 prompt\n" in called(tmp_path, [PAIR, PAIR]).stdout


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ("choosen=x", "unknown name in --columns 'choosen'; did you mean 'chosen'?"),
        ("winner=prompt", "does not read winner; layout"),
        ("chosen", "--columns chosen: expected NAME=COLUMN"),
    ],
)
def test_columns_are_checked_as_those_of_run(tmp_path: Path, columns: str, what: str) -> None:
    done = called(tmp_path, [PAIR], "--columns", columns)
    assert (done.exit_code, done.stdout) == (2, "")
    assert what in done.stderr
    assert done.stderr.count("\n") == 1


def test_rankings(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "responses": ["x", "y", "z"], "scores": [1, 2, 3]}]
    assert document(tmp_path, rows)["used"] == 3
    best = document(tmp_path, rows, "--rankings", "best")
    assert (best["used"], best["columns"]["rankings"]) == (2, "best")
