"""`--deterministic`: in force while cells train, in workers too, on record, and taken back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import xpo_bench
from xpo_bench import Algorithm
from xpo_bench.errors import UsageError
from xpo_bench.runner import environment

seen: list[bool] = []


class Looks(Algorithm):
    name: ClassVar[str] = "looks"

    def loss(self, step: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return -(step.log_ratio("chosen") - step.log_ratio("rejected"))


@pytest.mark.parametrize("asked", [True, False])
def test_in_force_while_cells_train(tmp_path: Path, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.WORKSPACE, raising=False)
    seen.clear()
    result = xpo_bench.run([Looks], "one_pair", seeds=1, steps=3, out=tmp_path / "r", deterministic=asked)
    assert result.ok
    assert set(seen) == {asked}
    told = result.cells[0]["environment"]
    assert told.get("deterministic", False) is asked
    assert (environment.WORKSPACE in told["variables"]) is asked
    assert not torch.are_deterministic_algorithms_enabled()
    assert environment.WORKSPACE not in os.environ


def test_workers_too(tmp_path: Path) -> None:
    words: dict[str, Any] = {"seeds": 1, "steps": 3, "deterministic": True}
    one, two = (xpo_bench.run("dpo,ipo", "bandit", out=tmp_path / str(n), workers=n, **words) for n in (1, 2))
    assert all(cell["environment"]["deterministic"] for cell in two.cells)
    assert all(cell["environment"]["variables"][environment.WORKSPACE] for cell in two.cells)
    assert [cell["final_policy"] for cell in one.cells] == [cell["final_policy"] for cell in two.cells]


def test_not_with_several_devices_a_cell(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--deterministic: not with --gpus-per-cell"):
        xpo_bench.run(
            "dpo",
            data=str(tmp_path / "none"),
            model="tiny",
            gpus_per_cell=2,
            device="cpu",
            deterministic=True,
            out=tmp_path / "r",
        )
