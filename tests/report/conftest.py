"""Synthetic records, and one real run of the article's suite."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from runs import FEW_SAMPLES

import xpo_bench
from xpo_bench.result import Result

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def article(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The suite with three algorithms and few steps; tests read it and leave it as it is."""
    out = tmp_path_factory.mktemp("article") / "run"
    return xpo_bench.run(["dpo", "ipo", "rlhf"], suite="article", out=out, steps=10, set=FEW_SAMPLES)


@pytest.fixture
def record() -> Make:
    """A cell record; metrics as keywords, everything else by the named arguments."""

    def make(
        algorithm: str = "dpo",
        task: str = "bandit",
        seed: int = 0,
        *,
        config: dict[str, Any] | None = None,
        status: str = "ok",
        experiment: str | None = None,
        lr: float = 0.05,
        steps: int = 2000,
        notes: dict[str, Any] | None = None,
        regulariser: list[Any] | None = None,
        vectorised: int = 1,
        expected: bool = False,
        error: str | None = None,
        data: dict[str, Any] | None = None,
        device: str = "cpu",
        **metrics: float | None,
    ) -> dict[str, Any]:
        return {
            "schema": 1,
            "key": f"{algorithm}{task}{seed}",
            "status": status,
            "error": {"type": "ValueError", "message": error, "traceback": ""} if error else None,
            "algorithm": {
                "name": algorithm,
                "config": config or {},
                "version": "1",
                "regulariser": regulariser,
            },
            "task": {
                "name": task,
                "version": "1",
                "data": data or {},
                "model": {"name": "tabular"},
                "budget": {"steps": steps},
                "options": {},
                "expected_divergence": expected,
            },
            "train": {"lr": lr, "optimizer": "adam"},
            "seed": seed,
            "experiment": experiment,
            "metrics": metrics if status in ("ok", "diverged") else {},
            "timing": {"vectorised_runs": vectorised},
            "notes": dict(notes or {}),
            "environment": {"device": device},
        }

    return make


@pytest.fixture
def printed() -> Callable[..., str]:
    """What a printing function writes at a width, as plain text."""

    def show(function: Callable[..., None], *args: Any, width: int = 80, **more: Any) -> str:
        console = Console(
            width=width, file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor"
        )
        function(console, *args, **more)
        return console.export_text()

    return show
