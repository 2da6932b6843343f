"""What a run says beside its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.report.runs import group
from xpo_bench.report.tables.task import task_tables
from xpo_bench.runner.remarks import remarks

ONE_PROMPT = [{"prompt": "Say", "chosen": c, "rejected": r} for c, r in ("ab", "cd", "ac")]


def test_kto_on_one_prompt_has_no_reference_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told once on stderr for all seeds, in every record, and under the task's table."""
    data = tmp_path / "one.jsonl"
    data.write_text("\n".join(map(json.dumps, ONE_PROMPT)), "utf-8")
    small = {"task.kl_prompts": 1, "task.kl_samples": 1, "task.max_new_tokens": 2}
    result = xpo_bench.run(
        "kto", data=str(data), model="tiny", seeds=2, steps=1, set=small, out=tmp_path / "run"
    )
    said = (
        "kto on one: all rows that are trained on share one prompt, none has a mismatched "
        "partner, and z0 is 0 throughout"
    )
    assert capsys.readouterr().err.count(said) == 1
    assert [cell["algorithm"]["z0"] for cell in result.cells] == ["none", "none"]
    assert {remark for cell in result.cells for remark in remarks(cell)} == {said}
    sheets = task_tables("one", group(result.cells))
    assert sheets[0].note.count(f"{said}.") == 1


def test_what_a_task_cannot_see_stands_under_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An algorithm whose loss reads lengths has the numbers of one that does not, and the table says why."""
    result = xpo_bench.run("ipo", tasks="bandit,length_bias", seeds=1, steps=1, out=tmp_path / "run")
    notes = {name: task_tables(name, of)[0].note for name, of in by_task(result.cells).items()}
    said = "bandit cannot see lengths: every completion is one token, so that a mean per token is the sum."
    assert notes["bandit"].count(said) == 1
    assert "length_bias cannot see where in a completion a loss acts" in notes["length_bias"]
    assert "cannot see" not in capsys.readouterr().err  # it is nothing that happened
    on_text = {"task.kl_prompts": 1, "task.kl_samples": 1, "task.max_new_tokens": 2, "task.batch_size": 2}
    words: dict[str, Any] = {"seeds": 1, "steps": 1, "set": on_text}
    text = xpo_bench.run("dpo", tasks="one_pair", model="tiny", out=tmp_path / "text", **words)
    assert "cannot_see" not in text.cells[0]["task"]


def by_task(cells: Any) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for of_seeds in group(cells):
        groups.setdefault(of_seeds.records[0].task.name, []).append(of_seeds)
    return groups


def test_other_records_have_none() -> None:
    record = {"algorithm": {"name": "kto", "z0": "mismatched"}, "task": {"name": "t"}}
    assert remarks(record) == []
    assert remarks({"algorithm": {"name": "dpo"}, "task": {"name": "t"}}) == []
