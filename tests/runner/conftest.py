"""Runs in a folder of their own, and a few rows for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.result import Result

ROWS = [
    ("ask", "yes", "no"),
    ("ask two?", "yes!!", "no way"),
    ("tell", "sure", "never"),
    ("say it", "fine", "nah nah"),
]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("XPO_BENCH_DATA", "XPO_BENCH_DISABLE", "XPO_BENCH_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def run() -> Callable[..., Result]:
    """`xpo_bench.run` on a small world, one seed and few steps unless said otherwise."""

    def small(algos: Any = "dpo", **words: Any) -> Result:
        if "data" not in words:
            words.setdefault("tasks", "deterministic")
        return xpo_bench.run(algos, **({"seeds": 1, "steps": 20} | words))

    return small


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = (json.dumps({"prompt": p, "chosen": c, "rejected": r}) for p, c, r in ROWS)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
