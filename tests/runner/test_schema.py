"""The JSON Schema of records: current, and true of what runs write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter, ValidationError
from runs import FEW_SAMPLES

import xpo_bench
from xpo_bench import Algorithm
from xpo_bench.runner.record import Record, schema

RECORD = TypeAdapter(Record)
PAGE = Path(__file__).parents[2] / "docs" / "record.schema.json"


class Raises(Algorithm):
    name: ClassVar[str] = "raises"

    def loss(self, step: Any) -> Any:
        raise RuntimeError("not today")


def records(tmp_path: Path) -> list[str]:
    words: dict[str, Any] = {"seeds": 1, "steps": 4, "set": FEW_SAMPLES, "out": tmp_path / "r"}
    xpo_bench.run(["dpo", "kto", Raises], ["bandit", "overfit_pair"], **words)
    xpo_bench.run("ipo", "one_pair", seeds=1, steps=400, lr=30.0, optimizer="sgd", out=tmp_path / "r")
    return [path.read_text("utf-8") for path in sorted((tmp_path / "r" / "cells").glob("*.json"))]


def test_the_committed_schema_is_that_of_the_models() -> None:
    assert json.loads(PAGE.read_text("utf-8")) == schema(), (
        "python -m xpo_bench.runner.record > docs/record.schema.json"
    )


def test_records_are_as_it_says(tmp_path: Path) -> None:
    found = records(tmp_path)
    assert {json.loads(text)["status"] for text in found} == {"ok", "diverged", "failed"}
    for text in found:
        RECORD.validate_json(text)
    assert {*schema()["required"], "suite", "labels"} == set(json.loads(found[0]))
    assert set(schema()["properties"]) - set(schema()["required"]) == {
        "suite",
        "labels",
        "protocol",
        "checkpoint",
        "metric_definitions",
        "evaluated",
        "saved_policy",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "fine"),
        ("seed", "0"),
        ("metrics", {"kl": float("nan")}),
        ("more", 1),
        ("key", "../x"),
        ("schema", 2),
    ],
)
def test_others_are_not(tmp_path: Path, field: str, value: Any) -> None:
    xpo_bench.run("dpo", "one_pair", seeds=1, steps=2, out=tmp_path / "r")
    (path,) = (tmp_path / "r" / "cells").glob("*.json")
    record = json.loads(path.read_text("utf-8"))
    RECORD.validate_json(json.dumps(record))
    with pytest.raises(ValidationError):
        RECORD.validate_json(json.dumps(record | {field: value}))
