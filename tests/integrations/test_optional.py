"""Libraries that the suite can do without: imported by modules that are named after them, and by no other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import xpo_bench

PACKAGE = Path(xpo_bench.__file__).parent


def test_without_trl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xpo_bench.integrations.trl", raising=False)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ImportError, match=r"pip install 'xpo-bench\[trl\]'") as refused:
        importlib.import_module("xpo_bench.integrations.trl")
    assert "\n" not in str(refused.value)


def test_no_other_module_imports_trl() -> None:
    naming = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(
            line.split()[:2] in (["from", "trl"], ["import", "trl"]) or line.strip().startswith("from trl.")
            for line in path.read_text().splitlines()
        )
    }
    assert naming == {"integrations/trl.py"}
