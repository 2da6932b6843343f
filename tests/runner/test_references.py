"""Reference scores on disk: paid for once per run directory, and never trusted when they are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from xpo_bench import Completion, ModelSpec
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.runner.references import References, fingerprint
from xpo_bench.train.reference_scores import CachedScore

SPEC = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=64)
ITEMS = [Completion("a", "one"), Completion("a", "two"), Completion("b", "")]


def command(out: str, algos: str) -> list[str]:
    words = f"run --algos {algos} --data d.jsonl --model tiny --steps 3 --seeds 1 --out {out} --quiet"
    return [*words.split(), "--set", "task.kl_prompts=2", "--set", "task.heldout_pairs=4"]


def rows(folder: Path) -> None:
    lines = [json.dumps({"prompt": f"p{i}", "chosen": f"{i} yes", "rejected": f"{i} no"}) for i in range(12)]
    (folder / "d.jsonl").write_text("\n".join(lines), "utf-8")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text("utf-8")) for path in (folder / "cells").glob("*.json")]
    return {record["algorithm"]["name"]: record for record in found}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "references" / "x.parquet"
    known = References(path)
    for i, item in enumerate(ITEMS):
        known[item] = CachedScore(
            torch.randn(i, generator=torch.Generator().manual_seed(i), dtype=dtype), i / 3
        )
    known.save()
    again = References(path)
    assert len(again) == len(ITEMS)
    assert Completion("a", "three") not in again
    for item in ITEMS:
        assert torch.equal(again[item].token_logps, known[item].token_logps)
        assert again[item].token_logps.dtype == dtype
        assert again[item].seconds == known[item].seconds


def test_two_writers_of_a_file_lose_nothing(tmp_path: Path) -> None:
    first, second = References(tmp_path / "x.parquet"), References(tmp_path / "x.parquet")
    first[ITEMS[0]] = second[ITEMS[1]] = CachedScore(torch.zeros(2), 0.0)
    first.save()
    second.save()
    assert all(item in References(tmp_path / "x.parquet") for item in ITEMS[:2])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_named_and_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "x.parquet"
    known = References(path)
    for i in range(50):
        known[Completion("p", str(i))] = CachedScore(torch.randn(20), 0.0)
    known.save()
    whole = path.read_bytes()
    flipped = bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 1, *whole[len(whole) // 2 + 1 :]])
    path.write_bytes({"cut": whole[:-100], "flipped": flipped, "empty": b"", "text": b"scores"}[damage])
    assert len(References(path)) == 0
    assert "x.parquet is incomplete or corrupt" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["x.damaged"]


def test_what_decides_a_score_decides_the_file() -> None:
    policy = CausalLM.load(SPEC, init_seed=0)
    prints = {fingerprint(policy, "keep_start"), fingerprint(policy, "keep_end")}
    prints.add(fingerprint(CausalLM.load(SPEC, init_seed=1), "keep_start"))
    prints.add(fingerprint(CausalLM.load(SPEC, init_seed=0, dtype="float64"), "keep_start"))
    assert len(prints) == 4
    assert fingerprint(CausalLM.load(SPEC, init_seed=0), "keep_start") in prints
    weight = policy.parameters()[0]
    with torch.no_grad():
        weight.view(-1)[0] += 1e-6
    assert fingerprint(policy, "keep_start") not in prints


def test_a_resumed_run_reads_them_and_charges_for_them(warm: Any, tmp_path: Path) -> None:
    rows(tmp_path)
    assert warm(*command("run", "dpo")).code == 0
    (file,) = (tmp_path / "run" / "references").glob("*.parquet")
    before = file.stat().st_mtime_ns
    assert warm(*command("run", "dpo,ipo")).code == 0
    assert file.stat().st_mtime_ns == before, "what the first run had scored was scored again"
    assert warm(*command("fresh", "ipo")).code == 0
    resumed, fresh = records(tmp_path / "run")["ipo"], records(tmp_path / "fresh")["ipo"]
    measured = ("prepare_s", "peak_memory_mb", "tokens_per_s", "pairs_per_s", "overhead")
    ours, theirs = (
        {k: v for k, v in cell["metrics"].items() if k not in measured} for cell in (resumed, fresh)
    )
    assert ours == theirs
    assert ours["total_flops"] > 0
    assert resumed["metrics"]["prepare_s"] > 0


def test_a_run_over_a_damaged_file_scores_again(warm: Any, tmp_path: Path) -> None:
    rows(tmp_path)
    assert warm(*command("run", "dpo")).code == 0
    (file,) = (tmp_path / "run" / "references").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    done = warm(*command("run", "dpo,ipo"))
    assert done.code == 0
    assert done.err.count("is incomplete or corrupt") == 1
    assert file.exists()
    assert file.with_suffix(".damaged").exists()
    assert {name: record["status"] for name, record in records(tmp_path / "run").items()} == {
        "dpo": "ok",
        "ipo": "ok",
    }
