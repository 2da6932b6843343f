"""The numbers of an evaluation against those of who trained: TRL, and this suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from trained_models import ROWS, Evaluate

import xpo_bench

TRAINING = {"overhead", "pairs_per_s", "tokens_per_s", "peak_memory_mb", "prepare_s", "total_flops"}
"""Metrics of the training itself."""
ONLY_HERE = {"finished"}


def logged_by_trl(stories: Path, out: Path) -> dict[str, list[float]]:
    """Train by TRL's DPO for a few steps; its own rewards of every row at the last checkpoint."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), r, strict=True)) for r in ROWS])
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(stories),
        ref_model=AutoModelForCausalLM.from_pretrained(stories),
        args=DPOConfig(
            output_dir=str(out),
            max_steps=6,
            save_steps=3,
            per_device_train_batch_size=3,
            per_device_eval_batch_size=1,
            learning_rate=1e-3,
            beta=0.1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(stories),
    )
    trainer.train()
    found: dict[str, list[float]] = {}
    log = trainer.log

    def kept(logs: dict[str, float], *more: Any, **words: Any) -> None:
        found.update({name: list(values) for name, values in trainer._metrics["eval"].items()})
        log(logs, *more, **words)

    trainer.log = kept
    trainer.evaluate()
    return found


def test_log_ratios_are_those_that_trl_logs(evaluate: Evaluate, stories: Path, tmp_path: Path) -> None:
    logged = logged_by_trl(stories, tmp_path / "dpo")
    result = evaluate(tmp_path / "dpo")
    (record,) = result.cells
    assert [p["step"] for p in record["evaluated"]["checkpoints"]] == [3, 6]
    items = pd.read_parquet(result.out / "items" / f"{record['key']}.parquet")
    for side in ("chosen", "rejected"):
        rewards = np.array(logged[f"rewards/{side}"]) / 0.1
        assert np.abs(rewards).max() > 1
        assert items[f"{side}_log_ratio"].to_numpy() == pytest.approx(rewards, abs=1e-4)


@pytest.mark.parametrize("lora", [None, "r=4"])
def test_a_policy_of_this_suite_has_the_numbers_of_its_record(
    evaluate: Evaluate, trained: Path, stories: Path, tmp_path: Path, lora: str | None
) -> None:
    few = {"task.kl_prompts": 2, "task.kl_samples": 2, "task.max_new_tokens": 6}
    run = xpo_bench.run(
        "dpo",
        data=str(trained / "prefs.jsonl"),
        model=str(stories),
        steps=4,
        seeds=[1],
        heldout=0.3,
        lora=lora,
        set={**few, "dpo.train.lr": 1e-3},
        save_policies=str(tmp_path / "policies"),
        out=tmp_path / "run",
    )
    (record,) = run.cells
    (saved,) = (tmp_path / "policies").iterdir()
    assert record["saved_policy"] == str(saved)
    (found,) = evaluate(saved, heldout=0.3).cells
    assert (found["algorithm"]["name"], found["seed"]) == ("dpo", 1)
    # null says something of a curve, of which an evaluation knows one point
    own = {n: value for n, value in record["metrics"].items() if n not in TRAINING and value is not None}
    theirs = {name: value for name, value in found["metrics"].items() if name not in ONLY_HERE}
    at_budgets = {name for name in own if "_at_" in name}
    assert {name for name in own if name not in at_budgets} == {n for n in theirs if n not in at_budgets}
    exact = 0.0 if lora is None else 1e-5  # a merged adapter is W + BA, rounded once more
    for name in theirs.keys() & own.keys():
        assert theirs[name] == pytest.approx(own[name], rel=exact, abs=10 * exact), name
    assert (own["kl"] or 0) > 0
    # nothing is computed twice, and what was saved is known to be there
    assert json.loads((saved / "xpo_bench.json").read_text())["key"] == record["key"]


def test_a_random_model_is_saved_with_the_policy_that_it_began_from(
    evaluate: Evaluate, trained: Path, tmp_path: Path
) -> None:
    few = {"task.kl_prompts": 2, "task.kl_samples": 2, "task.max_new_tokens": 6}
    words: dict[str, Any] = {"data": str(trained / "prefs.jsonl"), "model": "tiny", "steps": 3, "seeds": [0]}
    words |= {"set": few, "save_policies": str(tmp_path / "policies"), "out": tmp_path / "run"}
    (record,) = xpo_bench.run("ipo", **words).cells
    (initial,) = (tmp_path / "policies").glob("initial-*")
    (found,) = evaluate(record["saved_policy"], reference=initial).cells
    for name in ("kl", "chosen_logp", "displacement", "reward_accuracy"):
        assert found["metrics"][name] == record["metrics"][name], name
    # a policy that was taken away is trained again
    for path in initial.iterdir():
        path.unlink()
    assert xpo_bench.run("ipo", **words).computed == 1
    with pytest.raises(xpo_bench.UsageError, match="reads text otherwise"):
        evaluate(record["saved_policy"])


def test_tabular_policies_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(xpo_bench.UsageError, match="--save-policies: without effect here"):
        xpo_bench.run(
            "dpo", "bandit", steps=2, seeds=1, save_policies=str(tmp_path / "p"), out=tmp_path / "r"
        )
