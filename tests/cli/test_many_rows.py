"""`show` of a run with more rows than it draws: it reads no curve that it does not draw, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import xpo_bench
from xpo_bench import cli
from xpo_bench.report import content, table
from xpo_bench.report.curves import curve_reader


def test_only_the_curves_of_rows_that_are_drawn_are_read_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    betas = [0.1, 0.2, 0.3, 0.4, 0.5]
    result = xpo_bench.run(
        ["dpo"], ["deterministic"], seeds=2, steps=10, set={"dpo.beta": betas}, out=tmp_path
    )
    read: list[str] = []

    def counting(root: Path) -> Any:
        curves = curve_reader(root)

        def noted(key: str) -> Any:
            read.append(key)
            return curves(key)

        return noted

    monkeypatch.setattr(content, "curve_reader", counting)
    monkeypatch.setattr(table, "ROWS", 3)
    shown = CliRunner().invoke(cli.main, ["show", str(tmp_path)], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    first = {c["key"] for c in result.cells if c["algorithm"]["config"]["beta"] in betas[:3]}
    assert set(read) == first
    assert "Of 5 rows the curves of the first 3 were read; --json and report read all." in " ".join(
        shown.output.split()
    )
    assert "dpo beta=0.4" not in shown.output.split("Curves, mean over seeds")[1].split("as they were run")[0]


def test_a_curve_is_read_from_the_disk_once(tmp_path: Path) -> None:
    result = xpo_bench.run(["dpo"], ["deterministic"], seeds=1, steps=10, out=tmp_path)
    curves = curve_reader(tmp_path)
    rows = curves(result.cells[0]["key"])
    assert len(rows) > 3
    for path in (tmp_path / "curves").iterdir():
        path.unlink()
    assert curves(result.cells[0]["key"]) == rows
    assert curve_reader(tmp_path)(result.cells[0]["key"]) == []
