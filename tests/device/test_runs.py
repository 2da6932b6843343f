"""Whole runs on the device: one per algorithm against the CPU, twice the same bits, several devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerator import Accelerator
from runs import TIMED, content, same

import xpo_bench
from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task

pytestmark = pytest.mark.device

UNEQUAL = {*TIMED, "total_flops"}
"""Metrics of time and memory, and operations: how many prompts are shared depends on what is batched."""
SETTINGS = {"rso.candidates": 4, "rso.kept": 2, "bon.candidates": 4, "bon.kept": 2, "ppo.epochs": 1}


@dataclass(frozen=True)
class Small(Task):
    """Pairs with prompts of several lengths, on a model of two layers."""

    name: ClassVar[str] = "small"
    version: ClassVar[str] = "1"
    model: ClassVar[ModelSpec] = ModelSpec(
        name="tiny", tokenizer="bytes", hidden_size=32, heads=2, intermediate_size=64, context=64
    )
    budget: ClassVar[Budget] = Budget(
        steps=3, batch_size=4, optimizer="sgd", lr=0.05, dtype="float32", heldout=0.25, warm_start=1,
        kl_prompts=2, kl_samples=2, max_new_tokens=4,
    )  # fmt: skip

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        train = tuple(Pair("ask " * (i % 3 + 1), f" yes {i}", f" no, {i}" * (i % 2 + 1)) for i in range(8))
        return Dataset(train=train, heldout=train[:2], rows=8)


def run(folder: Path, device: str, algorithms: Any, tasks: Any, **words: Any) -> dict[str, dict[str, Any]]:
    """The records of a run, by algorithm; all have to be finished."""
    result = xpo_bench.run(algorithms, tasks, device=device, seeds=1, out=folder, **words)
    cells: list[Any] = list(result.cells)
    assert not {c["algorithm"]["name"]: c["error"] for c in cells if c["status"] != "ok"}
    return {cell["algorithm"]["name"]: cell for cell in cells}


def differences(mine: dict[str, Any], theirs: dict[str, Any], atol: float) -> dict[str, Any]:
    """Metrics that differ by more than `atol` and a thousandth, or are missing on one side."""
    left, right = (
        {name: v for name, v in record["metrics"].items() if v is not None and name not in UNEQUAL}
        for record in (mine, theirs)
    )
    return {
        name: (left.get(name), right.get(name))
        for name in left.keys() | right.keys()
        if left.get(name) != pytest.approx(right.get(name), abs=atol, rel=1e-3)
    }


@pytest.mark.parametrize("policy", ["table", "model"])
def test_one_run_per_algorithm(device: Accelerator, policy: str, tmp_path: Path) -> None:
    """Metrics are those of the CPU: to 1e-9 of tables in float64, to 2e-3 of a model in float32."""
    words: dict[str, Any] = (
        {"tasks": "bandit", "steps": 5} if policy == "table" else {"tasks": [Small], "set": SETTINGS}
    )
    with device.there():
        found = run(tmp_path / "device", device.name, "all", **words)
    wanted = run(tmp_path / "cpu", "cpu", "all", **words)
    assert found.keys() == wanted.keys()
    assert {c["environment"]["device"] for c in found.values()} == {device.name}
    atol = 1e-9 if policy == "table" else 2e-3
    assert {n: d for n in wanted if (d := differences(found[n], wanted[n], atol))} == {}


def test_many_adapters(device: Accelerator, tmp_path: Path) -> None:
    words: dict[str, Any] = {"lora": "r=2", "set": {"task.ensemble": 2}}
    with device.there():
        found = run(tmp_path / "device", device.name, "dpo,ipo", [Small], **words)
    wanted = run(tmp_path / "cpu", "cpu", "dpo,ipo", [Small], **words)
    assert {n: d for n in wanted if (d := differences(found[n], wanted[n], 2e-3))} == {}


def test_deterministic_runs_are_equal_to_the_bit(device: Accelerator, tmp_path: Path) -> None:
    with device.there():
        for name in ("one", "two"):
            run(tmp_path / name, device.name, "dpo,kto", [Small], deterministic=True)
            run(tmp_path / name, device.name, "dpo,ipo", "bandit", deterministic=True, steps=5)
    assert same(content(tmp_path / "one"), content(tmp_path / "two"))


def test_memory_is_measured(device: Accelerator, tmp_path: Path) -> None:
    """The peak is at least what the model, its gradients and Adam's two moments take."""
    with device.there():
        found = run(tmp_path / "run", device.name, "dpo", [Small], optimizer="adam")["dpo"]
    parameters = found["task"]["model"]["parameters"]
    assert found["metrics"]["peak_memory_mb"] > 4 * parameters * (4 if device.kind == "cuda" else 1) / 1e6


def test_several_devices(device: Accelerator, tmp_path: Path) -> None:
    """Two processes, by NCCL on two GPUs, make the steps of one."""
    if device.kind == "standin":
        pytest.skip("the stand-in is in one process")
    if device.kind == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs two GPUs")
    one = run(tmp_path / "one", device.name, "dpo,kto", [Small])
    two = run(tmp_path / "two", device.name, "dpo,kto", [Small], gpus_per_cell=2)
    assert {n: d for n in one if (d := differences(two[n], one[n], 2e-3))} == {}
