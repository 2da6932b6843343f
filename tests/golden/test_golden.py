"""The fixed plan of golden.py computes what it computed when numbers.json was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import NUMBERS, STORIES, compute, differences, machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STORIES.is_dir(), reason="needs the shared model and data"),
]


@pytest.mark.timeout(1800)
def test_a_fixed_plan_computes_the_numbers_that_it_always_did(tmp_path: Path) -> None:
    known = json.loads(NUMBERS.read_text("utf-8"))
    assert differences(known["numbers"], compute(tmp_path), known["machine"] == machine()) == []
