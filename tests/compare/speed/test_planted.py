"""Planted slowdowns, measured for real: a quarter of an hour, so only with `pytest -m slow`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

Planted = Callable[[str, float], Path]


@pytest.mark.parametrize(
    ("share", "allowed"), [(0.0, {"pass", "inconclusive"}), (0.15, {"regression", "inconclusive"})]
)
def test_planted_slowdowns_are_told_from_none(
    planted: Planted,
    variables: Callable[..., dict[str, str]],
    tmp_path: Path,
    share: float,
    allowed: set[str],
) -> None:
    planted("old", 0.0)
    planted("new", share)
    command = [
        str(Path(sys.executable).parent / "xpo-bench"),
        "compare",
        "--ab",
        "old",
        "new",
        "--algos",
        "dpo",
        "--json",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables({}), stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode in (0, 3, 4)
    for row in json.loads(done.stdout)["rows"]:
        assert row["verdict"] in allowed, row["test"]
        if row["verdict"] != "inconclusive":  # the planted ratio lies within what was measured
            assert row["test"]["lower"] / 1.05 < 1 + share < row["test"]["upper"] * 1.05
