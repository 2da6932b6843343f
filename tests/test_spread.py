"""How the tests are divided between processes."""

from __future__ import annotations

from pathlib import Path

from spread import TOGETHER, group_of

ROOT = Path(__file__).parents[1]


def test_tests_that_share_go_together_and_others_anywhere() -> None:
    assert [path for path in TOGETHER if not (ROOT / path).is_file()] == []
    assert group_of("tests/test_examples.py::test_a") == group_of("tests/cli/test_new_plugin.py::test_b[1]")
    assert group_of("tests/cli/test_ci.py::test_a") != group_of("tests/test_examples.py::test_a")
    assert group_of("tests/test_spread.py::test_a") != group_of("tests/test_spread.py::test_b")
