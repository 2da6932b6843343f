"""What a run says beside its numbers."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_other_records_have_none() -> None:
    record = {"algorithm": {"name": "kto", "z0": "mismatched"}, "task": {"name": "t"}}
    assert remarks(record) == []
    assert remarks({"algorithm": {"name": "dpo"}, "task": {"name": "t"}}) == []
