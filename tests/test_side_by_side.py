"""Commands that take a core each."""

from __future__ import annotations

import pytest
from side_by_side import main


def test_all_run_at_once_and_the_first_that_fails_gives_the_status(
    capfd: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    waits = f"while [ ! -e {tmp_path}/there ]; do sleep 0.05; done; echo late; exit 3"
    assert main([waits, f"touch {tmp_path}/there; echo early; exit 4", "echo fine"]) == 3
    assert capfd.readouterr().out.split("$ ")[1:] == [
        f"{waits}\nlate\n",
        f"touch {tmp_path}/there; echo early; exit 4\nearly\n",
        "echo fine\nfine\n",
    ]


def test_nothing_fails_where_all_succeed() -> None:
    assert main(["true", "true"]) == 0
