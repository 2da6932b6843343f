"""Models as trainers write them, made once: each a small change of the pretrained model of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pretrained import stories_folder
from trained_models import FEW, Evaluate, changed, write_rows

import xpo_bench
from xpo_bench import Result


@pytest.fixture(scope="session")
def stories() -> Path:
    return stories_folder()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run` with three checkpoints, `sharded`, which is the last of them, and `prefs.jsonl`."""
    root = tmp_path_factory.mktemp("trained")
    for step, by in ((9, 0.002), (20, 0.005), (100, 0.02)):
        changed(root / "run" / f"checkpoint-{step}", 1, by)
    changed(root / "sharded", 1, 0.02, max_shard_size="300KB")
    write_rows(root / "prefs.jsonl")
    return root


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lora`, an adapter, and `whole`, the model with it merged by peft."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(stories_folder())
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(0)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            p.data = 0.05 * torch.randn(p.shape, generator=generator)
    adapted.save_pretrained(str(root / "lora"))
    merged: Any = adapted.merge_and_unload()  # type: ignore[operator]
    merged.save_pretrained(root / "whole")
    AutoTokenizer.from_pretrained(stories_folder()).save_pretrained(root / "whole")
    return root


@pytest.fixture
def evaluate(trained: Path, stories: Path, tmp_path: Path) -> Evaluate:
    """`xpo_bench.evaluate` with little sampling, into a directory of the test."""

    def call(*checkpoints: object, **words: Any) -> Result:
        given = {"reference": stories, "data": trained / "prefs.jsonl", "out": tmp_path / "out"}
        return xpo_bench.evaluate([str(c) for c in checkpoints], **(FEW | given | words))

    return call


@pytest.fixture(scope="session")
def series(trained: Path, stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run with three checkpoints and one model, with a judge and another set: what most tests look at."""
    out = tmp_path_factory.mktemp("series") / "out"
    other = write_rows(
        out.parent / "other.jsonl", [("A cat", " sat on a mat.", " of."), ("I", " like it.", " a a.")]
    )
    return xpo_bench.evaluate(
        [f"dpo={trained / 'run'}", str(trained / "sharded")],
        reference=stories,
        data=trained / "prefs.jsonl",
        base_data=[other],
        judge=f"{Path(__file__).parent / 'judges.py'}:longer",
        beta=0.1,
        out=out,
        **FEW,
    )


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(trained / "run" / "checkpoint-9", tmp_path / "copied"))
