"""The tasks carry exactly the learning rates that the committed measurement chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xpo_bench.plugins import load

MEASURED = json.loads(
    (Path(__file__).parents[2] / "results" / "learning_rates.json").read_text(encoding="utf-8")
)["tasks"]


OWN_MODEL = [task for task in sorted(MEASURED) if load().task(task)[0].model.name in MEASURED[task]]
"""Tasks that were measured on their own policy; what was measured on another model does not decide their
tables.
"""


@pytest.mark.parametrize("task", OWN_MODEL)
def test_tables_are_those_of_the_measurement(task: str) -> None:
    cls, _ = load().task(task)
    algorithms = MEASURED[task][cls.model.name]["algorithms"]
    assert dict(cls.learning_rates) == {name: found["chosen"] for name, found in algorithms.items()}
